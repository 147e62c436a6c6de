"""Settings and networks that a regime cannot train are refused with what to type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from privbench.contract import Net, Spec
from privbench.data.population import Population
from privbench.errors import NotApplicable, UsageError
from privbench.models.described import as_net
from privbench.regimes.base import Regime
from privbench.regimes.centralized import Centralized
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.split import Split
from privbench.wire.wire import Wire

Train = Callable[[Regime, Net], Any]


@pytest.fixture
def train(population: Population) -> Train:
    """Train on nothing but an open wire."""

    def run(regime: Regime, net: Net) -> Any:
        return regime.train(net, population, Wire(), torch.Generator().manual_seed(0), "cpu")

    return run


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "foo"}, r"regime.optimizer=foo: .*for example torch.optim.SGD"),
        ({"optimizer": "Adam"}, r"regime.optimizer=Adam: .*for example torch.optim.Adam$"),
        ({"optimizer": None}, r"regime.optimizer=None"),
        ({"optimizer": "torch.nn.Flatten"}, r"torch.nn.Flatten cannot train"),
        ({"optimizer": "torch.optim.LBFGS"}, r"LBFGS cannot train .*closure"),
        ({"optimizer_args": {"momentun": 0.9}}, r"cannot train with .*'momentun'.*optimizer_args"),
        ({"optimizer_args": {"momentum": -1.0}}, r"Invalid momentum"),
        ({"optimizer_args": None}, r"regime.optimizer_args=None; expected names and values"),
        ({"lr": None}, r"regime.lr=None; expected a number above 0"),
        ({"augmentation": {"pixels": 1}}, r"choose one by name, for example augmentation=mirrored"),
    ],
)  # fmt: skip
def test_an_optimiser_that_cannot_train_is_refused_by_its_key(
    settings: dict[str, object], words: str, net: Net
) -> None:
    before = torch.get_rng_state()
    with pytest.raises(UsageError, match=words):
        Centralized(**settings).recipe(net, 100)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"crowd": None}, r"regime.crowd=None; expected privbench's Crowd.*crowd=uniform"),
        ({"slicer": "greedy"}, r"regime.slicer=greedy; expected privbench's Slicer.*slicer=greedy"),
        ({"stem": None}, r"regime.stem=None; expected at least 1"),
        ({"granularity": None}, r"regime.granularity=None; expected at least 1"),
    ],
)
def test_a_crowd_without_its_parts_is_refused(
    settings: dict[str, object], words: str, net: Net, train: Train
) -> None:
    with pytest.raises(UsageError, match=words):
        train(SliceNet(**settings), net)


@pytest.mark.parametrize("regime", [Split(), SliceNet()], ids=lambda regime: regime.name)
def test_a_network_with_too_few_layers_is_not_applicable(regime: Regime, train: Train) -> None:
    shallow = Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 8, 10]}))
    words = rf"regime={regime.name} cannot cut.*stem=1.* at least 3 .* this one has 2; choose"
    with pytest.raises(NotApplicable, match=words):
        train(regime, shallow)


@pytest.mark.parametrize("regime", [Split(), SliceNet()], ids=lambda regime: regime.name)
def test_a_network_that_cannot_be_cut_is_not_applicable(regime: Regime, train: Train) -> None:
    layers = [nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Linear(8, 10)]
    owners = as_net(nn.Sequential(nn.Flatten(), *layers))
    with pytest.raises(NotApplicable, match=rf"regime={regime.name} cannot cut.*batch norm"):
        train(regime, owners)
