"""The simulated crowd against centralized SGD and against the device-by-device twin."""

import pytest
import torch
from crowds import mlp, start, trained, walk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twin import Twin

from privbench.contract import Spec
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.training import train
from privbench.slicenet.crowd import Uniform

CONV = Spec("nets.Chain", {"side": 8, "channels": [3, 5, 4], "widths": [6, 4]})
OPTIMIZERS = {
    "sgd": ("torch.optim.SGD", {}, 0.3),
    "momentum": ("torch.optim.SGD", {"momentum": 0.9, "weight_decay": 1e-3}, 0.05),
    "adam": ("torch.optim.Adam", {}, 1e-3),
}


def regime(devices, tiling, optimizer="sgd", epochs=4, granularity=2):
    target, arguments, lr = OPTIMIZERS[optimizer]
    return SliceNet(
        crowd=Uniform(devices=devices),
        tiling=tiling,
        granularity=granularity,
        optimizer=target,
        optimizer_args=arguments,
        lr=lr,
        epochs=epochs,
        batch=12,
    )


def furthest(one, other):
    """Largest norm-wise relative difference of two states, tensor by tensor."""
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).norm() / other[k].norm()) for k in one)


def named(messages):
    """Messages by what names them."""
    found = {}
    for m in messages:
        rows = tuple(m.rows.tolist())
        # a gradient of a layer's map and one of what travels differ in their ends alone
        key = (m.step, m.phase, m.kind, m.sender, m.receiver, m.layer, m.units, rows)
        if m.kind == "slice_weights":  # several tiles of one block may have one host
            alike = [k for k in found if k[:-1] == (*key, m.sender == "releaser")]
            key = (*key, m.sender == "releaser", len(alike))
        assert key not in found
        found[key] = m
    return found


def agree(told):
    """Parameters, messages and bytes of a crowd are those of its twin and of centralized SGD."""
    central = train(told.trained.recipe, told.population.train, told.rng).weights
    twin = Twin(told.trained.topology, start(told), told.trained.recipe.optimizer)
    walk(twin, told)
    state = twin.collect()
    assert furthest(state, central) < 1e-10
    assert furthest(told.trained.net.weights, central) < 1e-12
    slow, fast = named(twin.mail.sent), named(told.tap.cut())
    assert slow.keys() == fast.keys()
    for key, message in slow.items():
        torch.testing.assert_close(fast[key].payload, message.payload, rtol=1e-8, atol=1e-12)
    for kind, total in told.wire.bytes.items():
        assert total == sum(m.nbytes for m in twin.mail.sent if m.kind == kind), kind


@pytest.mark.parametrize(
    "optimizer, tiling",
    [
        ("sgd", "output"),
        ("sgd", "input"),
        ("momentum", "input"),
        ("adam", "output"),
        pytest.param("momentum", "output", marks=pytest.mark.slow),
        pytest.param("adam", "input", marks=pytest.mark.slow),
    ],
)
def test_twenty_steps_of_an_mlp(optimizer, tiling):
    devices = 5 if optimizer == "sgd" else 3
    told = trained(regime(devices, tiling, optimizer, granularity=3), mlp(9, 8, 7, 6, 4), (1, 3, 3))
    assert told.trained.topology.steps == 20
    agree(told)


@pytest.mark.parametrize("tiling", ["output", "input"])
def test_twenty_steps_of_convolutions(tiling):
    agree(trained(regime(3, tiling, granularity=3), CONV, (1, 8, 8)))


EASY = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ANY = given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    devices=st.integers(1, 20),
    tiling=st.sampled_from(["output", "input"]),
    granularity=st.integers(1, 4),
)


def any_small_mlp(widths, devices, tiling, granularity):
    told = trained(
        regime(devices, tiling, epochs=1, granularity=granularity),
        mlp(4, *widths, 4),
        (1, 2, 2),
        count=20,
        seed=len(widths) + devices,
    )
    agree(told)


@pytest.mark.slow
@settings(EASY, max_examples=4)
@ANY
def test_any_small_mlp_on_any_crowd(widths, devices, tiling, granularity):
    any_small_mlp(widths, devices, tiling, granularity)


@pytest.mark.slow
@settings(EASY, max_examples=60)
@ANY
def test_many_small_mlps_on_any_crowd(widths, devices, tiling, granularity):
    any_small_mlp(widths, devices, tiling, granularity)
