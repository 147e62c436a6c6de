"""What several replicas of a network learn."""

from dataclasses import replace

import hypothesis
import pytest
import torch
import torch.nn.functional as F
from crowds import EVERYTHING, mlp, start, trained
from hypothesis import given
from hypothesis import strategies as st
from replicated import (
    CONV,
    NET,
    SHAPE,
    central,
    furthest,
    regime,
    rows_by_replica,
)
from test_networks import NETS

from privbench.contract import Spec, load_name
from privbench.regimes.centralized import Centralized
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.replica_lines import ReplicaRouter, parts_of, replica_of_owners
from privbench.slicenet.router import CrowdRouter


@pytest.mark.parametrize(
    "replicas, tiling",
    [
        (2, "input"),
        (2, "grid"),
        (3, "output"),
        pytest.param(2, "output", marks=pytest.mark.slow),
        pytest.param(3, "input", marks=pytest.mark.slow),
        pytest.param(3, "grid", marks=pytest.mark.slow),
    ],
)
def test_sgd_with_an_average_at_each_step_is_centralized_training(tiling, replicas):
    decay = {"weight_decay": 1e-3}
    told = trained(
        regime(replicas, tiling=tiling, optimizer_args=decay), NET, SHAPE, taps=tiling == "grid"
    )
    assert told.trained.topology.steps == 20
    assert furthest(told.trained.net.weights, central(told)) < 1e-10


def test_single_precision_stays_close_for_twenty_steps():
    told = trained(regime(3), NET, SHAPE, taps=False, dtype=torch.float32)
    assert furthest(told.trained.net.weights, central(told)) < 1e-4


def test_convolutions_and_dropout_too():
    told = trained(regime(granularity=2, epochs=2), CONV, (1, 8, 8), count=24)
    assert furthest(told.trained.net.weights, central(told)) < 1e-10
    told = trained(regime(3), Spec("nets.dropped"), (6,), classes=3)
    assert furthest(told.trained.net.weights, central(told)) < 1e-10


@pytest.mark.parametrize("tiling", ["grid", pytest.param("output", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", ["squeeze", "transformer", pytest.param("dense", marks=pytest.mark.slow)]
)
def test_other_networks_too(name, tiling):
    spec, shape = NETS[name]
    settings = regime(2, tiling=tiling, granularity=4, batch=6, epochs=1, lr=0.05)
    told = trained(settings, spec, shape, count=18)
    assert told.tap.messages
    assert furthest(told.trained.net.weights, central(told)) < 1e-10


EASY = hypothesis.settings(
    deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
ANY = given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    devices=st.integers(1, 12),
    replicas=st.integers(1, 12),
    tiling=st.sampled_from(["output", "input", "grid"]),
    batch=st.integers(1, 8),
)


def any_small_mlp(widths, devices, replicas, tiling, batch):
    settings = regime(
        min(replicas, devices), tiling=tiling, crowd=Uniform(devices=devices), batch=batch, epochs=1
    )
    told = trained(settings, mlp(4, *widths, 4), (1, 2, 2), count=16, seed=sum(widths) + devices)
    assert furthest(told.trained.net.weights, central(told)) < 1e-10
    router = CrowdRouter if settings.replicas == 1 else ReplicaRouter
    router, owners = router(told.trained.topology), told.tap.owners
    parts = [part for m in told.tap.messages for part in router.cut(m, owners[m.step], EVERYTHING)]
    assert sum(part.nbytes for part in parts) == sum(told.wire.bytes.values())


@pytest.mark.slow
@hypothesis.settings(EASY, max_examples=3)
@ANY
def test_any_small_mlp_in_any_number_of_replicas(**drawn):
    any_small_mlp(**drawn)


@pytest.mark.slow
@hypothesis.settings(EASY, max_examples=80)
@ANY
def test_many_small_mlps_in_any_number_of_replicas(**drawn):
    any_small_mlp(**drawn)


def test_a_replica_without_rows_in_a_step_waits():
    told = trained(regime(3, batch=2, epochs=1, lr=0.1), NET, SHAPE, count=40)
    assert any(0 in rows for rows in rows_by_replica(told).values())
    assert furthest(told.trained.net.weights, central(told)) < 1e-10


def test_momentum_is_not_centralized_training_and_is_not_said_to_be():
    settings = {"optimizer_args": {"momentum": 0.9}, "lr": 0.05}
    told = trained(regime(**settings), NET, SHAPE)
    assert furthest(told.trained.net.weights, central(told)) > 1e-4
    assert regime(**settings).equivalent() is None
    assert regime(optimizer="torch.optim.Adam").equivalent() is None
    assert regime(every=2).equivalent() is None
    assert isinstance(regime(optimizer_args={"weight_decay": 0.1}).equivalent(), Centralized)
    assert isinstance(regime(1, every=2, **settings).equivalent(), Centralized)


def test_momentum_is_centralized_training_where_replicas_always_have_equal_parts():
    """Means of what is remembered obey the same rule then: only changing weights break it."""
    settings = {"optimizer_args": {"momentum": 0.9}, "lr": 0.05, "batch": 60}
    told = trained(regime(**settings, epochs=8), NET, SHAPE)
    assert len({tuple(rows) for rows in rows_by_replica(told).values()}) == 1
    assert furthest(told.trained.net.weights, central(told)) < 1e-10


def test_replicas_part_between_averages_and_agree_after_them():
    told = trained(regime(every=5), NET, SHAPE)
    topology, other = told.trained.topology, parts_of(told.trained.topology)[1]
    for step, state in told.tap.states.items():
        apart = [name for name in state if "@" in name]
        assert bool(apart) == (step % 5 != 0)
        for name in apart:
            assert not torch.equal(state[name], state[name.split("@")[0]])
    assert furthest(told.trained.net.weights, central(told)) > 1e-3
    back = [
        m for m in told.tap.messages if m.step == topology.steps - 1 and m.kind == "slice_weights"
    ]
    for piece in other.slices:
        for name in topology.layer(piece.layer).parameters:
            part = piece.part(told.trained.net.weights[name])
            got = [m.payload for m in back if (m.receiver, m.layer) == (piece.party, name)]
            assert any(torch.equal(part, payload) for payload in got)


def slowly(told):
    """Plain modules, one a replica: the slow obvious way. Yields the weights in force at each step."""
    recipe, topology = told.trained.recipe, told.trained.topology
    places = {name: layer.place for layer in topology.layers for name in layer.parameters}
    modules = [
        replace(recipe.net, weights=start(told)).module().double() for _ in topology.replicas
    ]
    body = [{n: t for n, t in m.named_parameters() if places[n] == "body"} for m in modules]
    owned = [{n: t for n, t in m.named_parameters() if places[n] != "body"} for m in modules]
    build = load_name(recipe.optimizer.target)
    hosts = [build(list(tensors.values()), **recipe.optimizer.kwargs) for tensors in body]
    coordinator = build(list(owned[0].values()), **recipe.optimizer.kwargs)
    place, seen = replica_of_owners(topology), [0] * len(modules)
    for step, owners in told.tap.owners.items():
        yield [{n: t.clone() for n, t in m.state_dict().items()} for m in modules]
        batch = told.population.train[told.population.noted[step]]
        total = {name: torch.zeros_like(tensor) for name, tensor in owned[0].items()}
        for number, module in enumerate(modules):
            rows = (place[owners] == number).nonzero().flatten()
            if not len(rows):
                continue
            module.zero_grad()
            F.cross_entropy(module(batch.x[rows]), batch.y[rows]).backward()
            hosts[number].step()
            seen[number] += len(rows)
            for name in total:
                total[name] += owned[number][name].grad * len(rows) / len(owners)
        for name, tensor in owned[0].items():
            tensor.grad = total[name]
        coordinator.step()
        with torch.no_grad():
            for name, tensor in owned[0].items():
                for other in owned[1:]:
                    other[name].copy_(tensor)
            if (step + 1) % told.regime.average_every == 0 or step == topology.steps - 1:
                for name in body[0]:
                    mean = sum(own[name] * n for own, n in zip(body, seen, strict=True)) / sum(seen)
                    for own in body:
                        own[name].copy_(mean)
                seen = [0] * len(modules)
    yield [m.state_dict() for m in modules]


def losses(told, slow):
    """The mean loss of each step's rows, each under the weights of its replica."""
    place = replica_of_owners(told.trained.topology)
    for (step, owners), states in zip(told.tap.owners.items(), slow, strict=True):
        batch = told.population.train[told.population.noted[step]]
        module, found = told.trained.net.module().double(), []
        for number, state in enumerate(states):
            module.load_state_dict(state)
            mine = place[owners] == number
            found.append(F.cross_entropy(module(batch.x[mine]), batch.y[mine], reduction="sum"))
        yield sum(found).detach() / len(owners)


@pytest.mark.parametrize(
    "every, batch, settings",
    [
        (5, 12, {"optimizer_args": {"momentum": 0.9, "weight_decay": 1e-3}, "lr": 0.05}),
        (3, 2, {"optimizer": "torch.optim.Adam", "lr": 1e-2}),
        (1, 5, {"optimizer": "torch.optim.Adam", "lr": 1e-2, "tiling": "grid"}),
    ],
)
def test_it_learns_what_plain_modules_learn_that_average_as_it_says(every, batch, settings):
    told = trained(regime(3, every, batch=batch, epochs=1, **settings), NET, SHAPE)
    topology, steps = told.trained.topology, 0
    *slow, last = slowly(told)
    for states, fast in zip(slow, told.tap.states.values(), strict=True):
        for group, state in zip(topology.replicas, states, strict=True):
            own = {n: fast.get(topology.name_at(n, group[0]), fast[n]) for n in state}
            assert furthest(own, state) < 1e-10
            steps += 1
    assert steps == 3 * topology.steps
    alone = [float(loss) for loss in losses(told, slow)]
    assert told.trained.losses == pytest.approx(alone)
    assert furthest(told.trained.net.weights, last[0]) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["torch.optim.SGD", "torch.optim.Adam"])
@pytest.mark.parametrize("every", [1, 4])
def test_weights_and_bytes_do_not_depend_on_who_listens(optimizer, every):
    settings = regime(3, every, optimizer=optimizer, lr=1e-2, tiling="input", batch=4, epochs=1)
    loud = trained(settings, NET, SHAPE, dtype=torch.float32)
    still = trained(settings, NET, SHAPE, dtype=torch.float32, taps=False)
    assert loud.wire.bytes == still.wire.bytes
    for name, tensor in loud.trained.net.weights.items():
        assert torch.equal(still.trained.net.weights[name], tensor)


def test_one_replica_is_trained_as_ever():
    told = trained(regime(1, every=3, optimizer="torch.optim.Adam", lr=1e-2), NET, SHAPE)
    assert told.trained.topology.replicas == ()
    assert not any("@" in message.receiver for message in told.tap.messages)
    for name, tensor in central(told).items():
        assert torch.equal(told.trained.net.weights[name], tensor)
