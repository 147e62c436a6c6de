"""Budgets, slicers and settings that are refused."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from crowds import mlp, trained
from omegaconf import OmegaConf

from privbench import contract
from privbench.compose.building import build
from privbench.errors import BudgetError, PluginError, UsageError
from privbench.models.mlp import Mlp
from privbench.regimes.centralized import Centralized
from privbench.regimes.slicenet import SliceNet
from privbench.slicenet.crowd import Device, Mixed, Uniform
from privbench.slicenet.problem import Problem, Slicing, check_budgets, volume
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.exact import MixedInteger
from privbench.slicenet.slicers.greedy import Greedy
from privbench.slicenet.slicers.layerwise import Layerwise
from privbench.slicenet.slicers.metis import Metis
from privbench.slicenet.slicers.random import Random
from privbench.slicenet.trace import trace

CONF = Path(__file__).parents[2] / "conf"


def problem(crowd=None, tiling="output", **settings) -> Problem:
    """The default network on a crowd."""
    regime = SliceNet(crowd=crowd or Uniform(), tiling=tiling, **settings)
    recipe = regime.recipe(contract.Net(mlp(64, 128, 64, 32, 10)), 600)
    devices = len(regime.crowd.members())
    return regime.problem(trace(Mlp(), (1, 8, 8)), recipe, [600 // devices] * devices)


def test_twelve_devices_host_one_block_each_of_the_default_network():
    found = problem()
    slicing = Greedy().slice(found)
    assert Counter(v.layer for v in found.vertices) == {"linear1": 8, "linear2": 4}
    assert sorted(slicing.hosts) == list(range(12))
    assert slicing == Greedy().slice(problem())


def test_costs_are_those_of_the_whole_network():
    for tiling in ("output", "input"):
        found = problem(tiling=tiling)
        assert sum(v.flops for v in found.vertices) == 3 * 2 * (128 * 64 + 64 * 32)
        held = sum(v.parameters for v in found.vertices) + found.owner_parameters
        assert held == sum(p.numel() for p in Mlp().parameters())
        assert found.owner_flops == 2 * (2 * 64 * 128 + 3 * 32 * 10)
    assert found.own_rows == (32,) * 12


def test_memory_counts_parameters_and_distinct_inputs_by_hand():
    found = problem()
    outside = 64 * 128 + 128 + 32 * 10 + 10
    own = 32 * (128 + 10 + 32)  # of stem and tail, and what reaches the tail
    first = outside * 2 + own + (8 * 128 + 8) * 2 + 32 * (8 + 128)
    assert found.memory(0, [0]) == 4 * first
    two = first + (8 * 128 + 8) * 2 + 32 * 8
    assert found.memory(0, [0, 1]) == 4 * two  # the same 128 inputs serve both
    deep = first + (8 * 64 + 8) * 2 + 32 * (8 + 64 - 8)
    assert found.memory(0, [0, 8]) == 4 * deep  # 8 of the 64 inputs are its own
    momentum = problem(optimizer_args={"momentum": 0.9})
    assert momentum.memory(0, [0]) - found.memory(0, [0]) == 4 * (outside + 8 * 128 + 8)


@pytest.mark.parametrize("tiling", ["output", "input"])
def test_greedy_keeps_unequal_budgets_that_bind(tiling):
    weak, strong = Device(compute=1.4e6), Device(compute=4e6)
    found = problem(Mixed(devices=6, kinds=(weak, strong)), tiling)
    slicing = Greedy().slice(found)
    check_budgets(found, slicing)
    loads = Counter(slicing.hosts)
    assert loads[1] > loads[0]


@pytest.mark.parametrize(
    "device, constraint", [(Device(compute=1.0e6), "compute"), (Device(memory=9e4), "memory")]
)
def test_a_crowd_that_cannot_do_it_is_told_what_lacks(device, constraint):
    found = problem(Uniform(devices=3, device=device))
    with pytest.raises(BudgetError) as refused:
        Greedy().slice(found)
    words = str(refused.value)
    assert "device-" in words and f"{constraint} budget" in words and "too little" in words
    assert "crowd.devices" in words


@dataclass(frozen=True, kw_only=True)
class All(Slicer):
    """Everything on one device (a user's slicer)."""

    device: int = 0

    def slice(self, problem):
        return Slicing((self.device,) * len(problem.vertices))


def test_a_slicer_of_ones_own_is_used_and_its_budgets_are_checked():
    told = trained(SliceNet(slicer=All(device=2), epochs=1), mlp(9, 8, 6, 4), (1, 3, 3))
    assert told.trained.topology.hosts() == ("device-2",)
    tight = Uniform(devices=3, device=Device(compute=1.5e6))
    with pytest.raises(BudgetError, match=r"device-1 .*compute.* too little"):
        check_budgets(problem(tight), All(device=1).slice(problem(tight)))
    with pytest.raises(PluginError, match="from 0 to 2"):
        check_budgets(problem(tight), All(device=3).slice(problem(tight)))
    with pytest.raises(PluginError, match="12 vertices"):
        check_budgets(problem(tight), Slicing((0,)))


def test_fewer_links_mean_less_volume():
    spread, found = Greedy().slice(problem()), problem()
    assert volume(found, All().slice(found)) < volume(found, spread)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"optimizer": "torch.optim.LBFGS"}, "slice by slice"),
        ({"tiling": "diagonal"}, "output, input, grid"),
        ({"granularity": 0}, "at least 1"),
        ({"stem": 3}, "needs at least 5"),
        ({"lr": -1.0}, "regime.lr"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        trained(SliceNet(**settings), mlp(9, 8, 7, 4), (1, 3, 3))


def test_crowds_out_of_range_are_refused():
    with pytest.raises(UsageError, match=r"crowd\.devices=0"):
        Uniform(devices=0)
    with pytest.raises(UsageError, match="memory=-1"):
        Device(memory=-1)


def test_it_equals_centralized_training_with_one_recipe():
    regime = SliceNet(lr=0.1, epochs=7, batch=9, optimizer_args={"momentum": 0.5})
    net = contract.Net(mlp(9, 8, 7, 4))
    other = regime.equivalent()
    assert isinstance(other, Centralized)
    assert other.recipe(net, 60).signature == regime.recipe(net, 60).signature
    assert other.trainer == regime.trainer


CHOICES = {
    "crowd/uniform": Uniform(),
    "crowd/mixed": Mixed(),
    "slicer/greedy": Greedy(),
    "slicer/layerwise": Layerwise(),
    "slicer/random": Random(),
    "slicer/metis": Metis(),
    "slicer/exact": MixedInteger(),
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_built_from_their_yaml(name):
    settings = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert build(settings, name.split("/")[0]) == CHOICES[name]
