"""Devices that hold nothing but their slices, against the simulated crowd and centralized training."""

from __future__ import annotations

import pytest
import torch
from crowds import trained
from device_nets import NETS, QUICK
from devices import OPTIMIZERS, furthest, named, regime, told_to, walked
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from privbench.contract import Spec
from privbench.data.augmentations import Moved
from privbench.errors import UsageError
from privbench.regimes.training import train
from privbench.slicenet.briefing import Public
from privbench.slicenet.device import Host
from privbench.slicenet.skeleton import Skeleton

SLOW = [pytest.param(net, marks=pytest.mark.slow) for net in sorted(set(NETS) - set(QUICK))]


def agree(told):
    """Parameters, messages and bytes of devices are those of the simulated crowd and of one machine."""
    central = train(told.trained.recipe, told.population.train, told.rng).weights
    program, heard = walked(told)
    state = program.releaser.state | {name: n for (_, name), n in program.counters().items()}
    assert furthest(state, central) < 1e-10
    assert furthest(told.trained.net.weights, central) < 1e-10
    slow, fast = named(heard.messages), named(told.tap.cut())
    assert slow.keys() == fast.keys()
    for key, message in slow.items():
        torch.testing.assert_close(fast[key].payload, message.payload, rtol=1e-8, atol=1e-11)
    for kind, total in told.wire.bytes.items():
        assert total == sum(m.nbytes for m in heard.messages if m.kind == kind), kind
    last = told.trained.topology.steps - 1
    assert program.loss == pytest.approx(told.trained.losses[last], rel=1e-9)
    return program, heard


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "tiling", ["grid", *(pytest.param(t, marks=pytest.mark.slow) for t in ("input", "output"))]
)
@pytest.mark.parametrize("net", [*QUICK, *SLOW])
def test_devices_alone_train_and_send_as_the_simulated_crowd_does(net, tiling):
    told = trained(regime(5, tiling), *NETS[net])
    assert told.trained.topology.steps == 20
    agree(told)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("net", sorted(NETS))
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_every_device_runs_an_optimiser_of_its_own(net, optimizer):
    agree(trained(regime(5, "grid", optimizer), *NETS[net]))


@pytest.mark.parametrize("devices", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_one_device_hosts_all_and_many_host_little(devices):
    told = trained(regime(devices, "grid", "momentum", epochs=1), *NETS["mlp"])
    agree(told)


def test_two_stem_layers_and_a_falling_learning_rate():
    agree(trained(regime(4, "input", stem=2, decay="linear"), *NETS["mlp"]))


def test_owners_draw_the_copies_that_one_machine_would_draw():
    agree(trained(regime(4, "grid", epochs=1, augmentation=Moved()), *NETS["mlp"]))


def test_a_stem_layer_that_the_tail_alone_needs():
    agree(trained(regime(4, "grid", stem=2, epochs=1), Spec("nets.Side", {}), (1, 4, 4)))


EASY = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(EASY, max_examples=100, phases=[Phase.generate])
@given(
    net=st.sampled_from(sorted(set(NETS) - {"lenet"})),  # which has many tiles
    devices=st.integers(1, 200),
    tiling=st.sampled_from(["output", "input", "grid"]),
    granularity=st.integers(1, 5),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
)
def test_any_network_on_any_crowd(net, devices, tiling, granularity, optimizer):
    crowd = regime(devices, tiling, optimizer, epochs=10, granularity=granularity)
    told = trained(crowd, *NETS[net], count=24, seed=devices)
    assert told.trained.topology.steps == 20
    agree(told)


def test_a_device_holds_its_slices_and_nothing_else():
    told = trained(regime(5, "grid", epochs=1), *NETS["residual"])
    program, heard = walked(told)
    public, private, _ = told_to(told)
    topology = public.topology
    sizes = {name: t.numel() for name, t in private.state.items()}
    hosts = [h for h in vars(program)["_hosts"].values() if h.works]
    assert len(hosts) > 1
    for host in hosts:
        mine = sum(
            part.numel()
            for piece in topology.slices
            if piece.party == host.name
            for name in topology.layer(piece.layer).parameters
            if name not in public.constants  # counters
            and (part := piece.part(private.state[name])) is not None
        )
        held = [t for work in host.works.values() for ts in work.tensors.values() for t in ts]
        floats = sum(t.numel() for t in held if t.is_floating_point())
        assert floats == mine < sum(sizes.values())
    skeleton = next(iter(vars(program)["_owners"].values()))._skeleton
    kept = [t for stage in skeleton.graph.stages for t in stage.tensors.values()]
    assert kept and all(tensor.numel() == 0 for tensor in kept)
    assert len(heard.held) == topology.steps


def test_a_host_is_told_its_initial_slice_by_messages_alone():
    told = trained(regime(3, epochs=1), *NETS["mlp"])
    public, private, _ = told_to(told)
    graph = public.graph()
    (first, *_), state = public.topology.hosts(), private.state
    slices = [piece for piece in public.topology.slices if piece.party == first]
    host = Host(first, Skeleton(graph), slices, public.optimizer)
    piece = slices[0]
    name = public.topology.layer(piece.layer).parameters[0]
    work = host.works[piece.layer]
    assert not torch.equal(work.part(piece, name), piece.part(state[name]))
    work.hold(piece, name, piece.part(state[name]))
    assert torch.equal(work.part(piece, name), piece.part(state[name]))


def test_a_tensor_that_stem_and_tail_share_is_refused():
    told = trained(regime(3, epochs=1), *NETS["mlp"])
    public, private, _ = told_to(told)
    graph = public.graph()
    stem, tail = graph.placed("stem")[0], graph.placed("tail")[0]
    tail.tensors["again"] = next(iter(stem.tensors.values()))
    sample = private.holdings["device-0"].samples.x[0]
    with pytest.raises(UsageError, match="one tensor"):
        Public.of(public.topology, public.recipe, graph, 0, sample, 1)
