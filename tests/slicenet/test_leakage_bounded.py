"""Bounds on what a device sees: kept where they can be, refused with words where not."""

from pathlib import Path

import numpy as np
import pytest
from instances import budgeted, instance, network, peopled, plant
from omegaconf import OmegaConf

from privbench.compose.building import build
from privbench.errors import BudgetError, UsageError
from privbench.slicenet.problem import gaps_of, received, volume
from privbench.slicenet.slicers.hypergraph import Hypergraph
from privbench.slicenet.slicers.leakage_bounded import LeakageBounded, sights_of

CONF = Path(__file__).parents[2] / "conf/slicer/leakage_bounded.yaml"
QUICK = {"effort": 0.05, "kahypar": False}


def problem(kind, devices=6, seed=0):
    """A network on a crowd that could host it four times."""
    rng = np.random.default_rng(seed)
    found = peopled(rng, network(rng, kind, 24), devices, False)
    return budgeted(rng, found, plant(rng, found, np.arange(devices)), (4.0, 4.0), True)


def shares(found, slicing, layer):
    """The share of a layer that each device makes or receives, by the definition."""
    seen = []
    for device in range(len(found.devices)):
        hosted = set(slicing.hosted(device))
        for sight in sights_of(found):
            if sight.layer != layer:
                continue
            numbers = 0
            for place in sight.flows:
                flow = found.flows[place]
                made = zip(flow.sources, flow.numbers, strict=False)
                numbers += received(flow, hosted) + sum(n for s, n in made if s in hosted)
            seen.append(numbers / sight.numbers)
    return seen


@pytest.mark.parametrize("kind", ["mlp-input", "conv-input", "mlp-grid", "conv-grid"])
def test_no_device_sees_more_of_the_first_layer_than_the_share(kind):
    found = problem(kind)
    first = found.flows[0].layer
    free = Hypergraph(**QUICK).slice(found)
    assert max(shares(found, free, first)) > 0.6
    bounded = LeakageBounded(share=0.6, **QUICK).slice(found)
    assert not gaps_of(found, bounded)
    assert 0 < max(shares(found, bounded, first)) <= 0.6
    assert volume(found, bounded) >= volume(found, free)


def test_a_measured_table_bounds_leakage_times_share():
    found = problem("mlp-grid")
    first = found.flows[0].layer
    slicer = LeakageBounded(depth=0, leakage={first: 4.0}, bound=3.0, **QUICK)
    assert max(shares(found, slicer.slice(found), first)) <= 0.75


def test_grid_bounds_a_deeper_layer_too():
    found = problem("mlp-grid", devices=12)
    layers = list(dict.fromkeys(flow.layer for flow in found.flows))
    slicing = LeakageBounded(depth=3, share=0.8, **QUICK).slice(found)
    for layer in layers[:2]:
        assert max(shares(found, slicing, layer)) <= 0.8


def test_without_a_bound_it_is_the_hypergraph_slicer():
    found = instance(3).problem
    assert LeakageBounded(**QUICK).slice(found) == Hypergraph(**QUICK).slice(found)


def test_a_share_under_output_tiling_is_refused_with_the_reason():
    with pytest.raises(BudgetError, match=r"tiled by output.*regime\.tiling=grid.*regime\.stem"):
        LeakageBounded(share=0.5, **QUICK).slice(problem("mlp-output"))


def test_a_bound_that_no_crowd_so_small_can_keep_is_refused():
    with pytest.raises(BudgetError, match=r"no host.*slicer\.share"):
        LeakageBounded(share=0.3, **QUICK).slice(problem("mlp-input", devices=3))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"share": 0.0}, r"slicer\.share=0"),
        ({"share": 1.5}, r"slicer\.share=1.5"),
        ({"depth": -1}, r"slicer\.depth=-1"),
        ({"bound": 1.0}, "bounds nothing"),
        ({"leakage": {"a": -1.0}, "bound": 1.0}, "at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        LeakageBounded(**settings)


def test_a_table_of_unknown_layers_is_refused_with_the_right_names():
    found = problem("mlp-grid")
    with pytest.raises(UsageError, match=f"nowhere; expected some of {found.flows[0].layer}"):
        LeakageBounded(leakage={"nowhere": 1.0}, bound=1.0).slice(found)


def test_it_is_built_from_its_yaml():
    assert build(OmegaConf.to_container(OmegaConf.load(CONF)), "slicer") == LeakageBounded(
        share=0.5
    )
