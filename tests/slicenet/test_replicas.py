"""Several replicas of a network: what they learn, what they send, and who is dealt where."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from crowds import EVERYTHING, Keeps, mlp, start, trained
from torch import nn
from twin import Twin

from attacks.reconstruction.ridge_decoder import RidgeDecoder
from privbench.contract import HEADER_BYTES, MessageDefense, Public, Seat, Spec, load_name
from privbench.errors import BudgetError, UsageError
from privbench.regimes.centralized import Centralized
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.training import train
from privbench.slicenet.crowd import Device, Mixed, Uniform
from privbench.slicenet.groups import bill_of_groups, dealt, grouped, volume_of_groups
from privbench.slicenet.ledger import bill_of
from privbench.slicenet.problem import volume
from privbench.slicenet.replica_lines import ReplicaRouter, parts_of, replica_of_owners
from privbench.slicenet.router import CrowdRouter
from privbench.slicenet.slicers.greedy import Greedy
from privbench.slicenet.slicers.hypergraph import Hypergraph
from privbench.slicenet.slicers.layerwise import Layerwise
from privbench.slicenet.slicers.random import Random
from privbench.slicenet.tiles import slices_of, tiles_of
from privbench.slicenet.trace import trace
from privbench.threats.crowd import Host
from privbench.views import Facts, views_of
from privbench.wire.tap import Capture, Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire

NET, SHAPE = mlp(9, 8, 7, 6, 4), (1, 3, 3)
CONV = Spec("nets.Chain", {"side": 8, "channels": [4, 6], "widths": [8, 7, 4]})
ROWS = ("activation", "partial_sum", "gradient", "stem_gradient", "tail_gradient")
TRAFFIC = ("activation", "partial_sum", "gradient")


def regime(replicas=2, every=1, **other):
    settings = {"crowd": Uniform(devices=6), "granularity": 3, "epochs": 4, "batch": 12, "lr": 0.3}
    return SliceNet(replicas=replicas, average_every=every, **{**settings, **other})


def furthest(one, other):
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).norm() / other[k].norm()) for k in one)


def central(told):
    return train(told.trained.recipe, told.population.train, told.rng).weights


def cut(told, seat=EVERYTHING):
    """What a seat saw, whole messages cut."""
    router = ReplicaRouter(told.trained.topology)
    for message in told.tap.messages:
        yield from router.cut(message, told.tap.owners[message.step], seat)


def rows_by_replica(told):
    """For each step how many rows each replica had."""
    place, count = replica_of_owners(told.trained.topology), told.regime.replicas
    return {
        step: [int((place[owners] == n).sum()) for n in range(count)]
        for step, owners in told.tap.owners.items()
    }


def slice_bytes(topology):
    """Bytes that all parameters of the body take, tile by tile, and of how many tensors."""
    graph_of = trace(topology.net.module(), SHAPE)
    tensors = {stage.layer.name: stage.tensors for stage in graph_of.placed("body")}
    parts = [
        part
        for piece in parts_of(topology)[0].slices
        for tensor in tensors[piece.layer].values()
        if (part := piece.part(tensor)) is not None
    ]
    return sum(part.numel() for part in parts) * 8 + HEADER_BYTES * len(parts)


# what they learn


@pytest.mark.parametrize("tiling", ["output", "input", "grid"])
@pytest.mark.parametrize("replicas", [2, 3])
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


# what they send


@pytest.mark.parametrize("tiling", ["output", "input"])
def test_each_replica_sends_what_its_twin_sends_on_its_rows(tiling):
    """A device-by-device twin takes each step alone, on the rows and weights of one replica."""
    told = trained(regime(every=3, tiling=tiling, epochs=1, batch=10), CONV, (1, 8, 8))
    topology, place = told.trained.topology, replica_of_owners(told.trained.topology)
    sent = list(cut(told))
    compared = 0
    for step, state in told.tap.states.items():
        owners = told.tap.owners[step]
        batch = told.population.train[told.population.noted[step]]
        for number, part in enumerate(parts_of(topology)):
            rows = (place[owners] == number).nonzero().flatten()
            group = topology.replicas[number]
            own = {n: state.get(topology.name_at(n, group[0]), t) for n, t in state.items()}
            twin = Twin(part, own, told.trained.recipe.optimizer)
            twin.step(step, batch.x[rows], batch.y[rows], owners[rows])
            slow = {named(m, rows): m for m in twin.mail.sent if m.kind in ROWS}
            fast = {
                named(m): m for m in sent if m.step == step and m.kind in ROWS and m.sender in group
            }
            assert slow.keys() == fast.keys()
            for key, message in slow.items():
                scale = len(rows) / len(owners) if "gradient" in message.kind else 1
                got = fast[key].payload
                torch.testing.assert_close(got, message.payload * scale, rtol=1e-8, atol=1e-12)
                compared += 1
    assert compared > 100


def named(message, rows=None):
    """What names a message; ``rows`` = where a replica's rows lie in the batch."""
    there = message.rows if rows is None else rows[message.rows]
    ends = (message.sender, message.receiver)
    return message.kind, *ends, message.layer, message.units, tuple(there.tolist())


def test_a_whole_message_takes_the_bytes_of_its_parts():
    told = trained(regime(3, every=2, tiling="input", batch=3, epochs=1), NET, SHAPE)
    router = ReplicaRouter(told.trained.topology)
    for message in told.tap.messages:
        owners = told.tap.owners[message.step]
        router.begin(message.step, owners)
        parts = list(router.cut(message, owners, EVERYTHING))
        assert router.nbytes(message) == sum(part.nbytes for part in parts)


def test_messages_stay_within_a_replica_but_for_averages():
    told = trained(regime(3, batch=5, epochs=1), NET, SHAPE)
    place = told.trained.topology.replica
    for message in cut(told):
        ends = (message.sender, message.receiver)
        if message.kind in TRAFFIC:
            assert place(ends[0]) == place(ends[1])
            owners = told.tap.owners[message.step][message.rows]
            names = {told.trained.topology.owners[k] for k in owners.tolist()}
            assert {place(name) for name in names} == {place(ends[0])}
        elif message.kind == "slice_weights" and "releaser" not in ends:
            assert (place(ends[0]) == 0) != (place(ends[1]) == 0)


def test_averages_take_the_bytes_of_the_formula():
    told = trained(regime(3, every=4, batch=2, epochs=1, tiling="input"), NET, SHAPE)
    topology, rows = told.trained.topology, rows_by_replica(told)
    senders = backs = 0
    for begin in range(0, topology.steps, 4):
        window = [rows[step] for step in range(begin, min(begin + 4, topology.steps))]
        senders += sum(any(each[n] for each in window) for n in (1, 2))
        backs += 2
    assert senders < backs, "each replica had rows in each window; the test shows little"
    expected = (senders + backs) * slice_bytes(topology)
    ends = [m for m in told.tap.messages if m.kind == "slice_weights"]
    moved = sum(m.nbytes for m in ends if "releaser" in (m.sender, m.receiver))
    assert told.wire.bytes["slice_weights"] - moved == expected


def test_hosts_of_all_replicas_get_their_slices_and_the_first_ones_hand_them_in():
    told = trained(regime(2, epochs=1), NET, SHAPE)
    sent = [m for m in told.tap.messages if m.kind == "slice_weights"]
    size = sum(t.numel() for t in told.trained.net.weights.values())
    owned = sum(t.numel() for n, t in told.trained.net.weights.items() if n[6] in "03")
    out = sum(m.payload.numel() for m in sent if m.sender == "releaser")
    assert out == 2 * size - owned
    handed = [m for m in sent if m.receiver == "releaser"]
    assert sum(m.payload.numel() for m in handed) == size
    assert {m.sender for m in handed} <= {*told.trained.topology.replicas[0], "coordinator"}


def test_the_volume_is_the_mean_of_the_replicas():
    told = trained(regime(2, epochs=1, crowd=Uniform(devices=5)), NET, SHAPE)
    groups, problem = groups_of(told)
    payload = sum(m.nbytes - HEADER_BYTES for m in cut(told) if m.kind in TRAFFIC)
    records = sum(len(share) for share in told.population.shares)
    assert payload == volume_of_groups(groups) * records
    total = sum(each.nbytes for each in told.trained.topology.traffic)
    assert total == pytest.approx(float(volume_of_groups(groups)))
    one = grouped(problem, [12] * 5, Greedy(), 1)
    assert volume_of_groups(one) == volume(one[0].problem, one[0].slicing)


def groups_of(told):
    graph = trace(told.trained.net.module().double(), SHAPE)
    sizes = [len(share) for share in told.population.shares]
    problem = told.regime.problem(graph, told.trained.recipe, sizes)
    return grouped(problem, sizes, told.regime.slicer, told.regime.replicas), problem


def test_a_bill_counts_every_replica_and_the_averages():
    told = trained(regime(2, epochs=1, every=3), NET, SHAPE)
    groups, problem = groups_of(told)
    bill = bill_of_groups(problem, groups, every=3)
    kinds = {each.kind: each.nbytes for each in bill.kinds}
    body = sum(vertex.parameters for vertex in problem.vertices)
    assert kinds["slice_weights"] == pytest.approx(2 * body * problem.element / 3)
    flops = 12 * (sum(vertex.flops for vertex in problem.vertices) + problem.owner_flops)
    assert sum(cost.flops for cost in bill.costs) == pytest.approx(flops)
    loads = told.trained.topology.loads
    assert [cost.memory for cost in bill.costs] == [load.memory for load in loads]
    crossing = kinds["activation"] + kinds["gradient"]
    assert crossing == pytest.approx(12 * float(volume_of_groups(groups)))
    alone = bill_of(problem, groups[0].slicing)
    assert 0 < bill.seconds < 2 * alone.seconds
    rare = bill_of_groups(problem, groups, every=300)
    assert rare.seconds < bill.seconds and rare.nbytes < bill.nbytes
    assert told.trained.topology.bills[0].regime == "slicenet"


@dataclass(frozen=True, kw_only=True)
class Marked(MessageDefense):
    """Adds noise of its generator, which the same for two replicas would cancel out (a double)."""

    kinds = ("activation",)
    source = "none: a double"

    def send(self, message, rng):
        return replace(
            message, payload=torch.rand(1, generator=rng).double().expand_as(message.payload)
        )


def test_a_defense_draws_anew_for_each_replica():
    told = trained(regime(2, epochs=1), NET, SHAPE, defenses=(Marked(),))
    told_by = {}
    for message in cut(told):
        if message.kind == "activation":
            replica = told.trained.topology.replica(message.sender)
            told_by.setdefault((message.step, message.layer), {})[replica] = message.payload.max()
    assert told_by and all(len(set(each.values())) == 2 for each in told_by.values())


def test_a_recording_is_cut_like_what_was_sent(tmp_path):
    wire = Wire((Keeps(), Recorder(tmp_path, Capture())))
    told = trained(regime(3, every=2, tiling="input", batch=4, epochs=1), NET, SHAPE, taps=False)
    told.regime.train(told.net, told.population, wire, told.rng, "cpu")
    for tap in wire.taps:
        tap.close()
    told.tap, found = wire.taps[0], Transcript(tmp_path)
    assert (
        any("@" in name for name in found.state(1))
        and found.state(2).keys() < found.state(1).keys()
    )
    for party in ("device-0", "device-4"):
        seat = Seat(party, "peer", (party,))
        read = list(found.seen_by(seat, found.steps, {m.kind for m in told.tap.messages}))
        kept = list(cut(told, seat))
        assert len(read) == len(kept) > 0
        for one, other in zip(read, kept, strict=True):
            assert named(one) == named(other)
            assert torch.equal(one.payload, other.payload)


def test_a_host_holds_the_weights_of_its_own_replica(tmp_path):
    wire = Wire((Recorder(tmp_path, Capture()),))
    told = trained(regime(2, every=3, epochs=1), NET, SHAPE, taps=False)
    told.regime.train(told.net, told.population, wire, told.rng, "cpu")
    wire.taps[0].close()
    found, topology = Transcript(tmp_path), told.trained.topology
    threat = Host(steps="all")
    facts = Facts(Public(), lambda rows: None, lambda rows, owned: rows, lambda steps: ())
    views = views_of(found, topology, threat, threat.seats(topology), RidgeDecoder(), facts)
    apart = 0
    for view in views:
        place = topology.replica(view.seat.parties[0])
        hosted = topology.hosted(view.seat.parties[0])
        for held in (weights for weights in view.weights if weights.layer in hosted):
            state = found.state(held.step)
            for name, tensor in held.tensors.items():
                key = f"{name}@1" if place and held.step % 3 else name
                whole = state[key] if held.units is None else state[key][list(held.units)]
                assert torch.equal(tensor, whole)
                apart += key != name
        for message in view.messages:
            owners = {topology.owners[k] for k in found.owners[message.step][message.rows].tolist()}
            if message.kind in TRAFFIC:
                assert {topology.replica(owner) for owner in owners} == {place}
    assert apart > 10


# who is dealt where


@pytest.mark.parametrize(
    "slicer",
    [Greedy(), Layerwise(), Random(), pytest.param(Hypergraph(), marks=pytest.mark.slow)],
    ids=lambda slicer: type(slicer).__name__,
)
def test_every_device_keeps_its_budget_whatever_replica_it_is_in(slicer):
    told = trained(regime(3, crowd=Mixed(devices=9), slicer=slicer, epochs=1), NET, SHAPE)
    topology = told.trained.topology
    assert sorted(sum(topology.replicas, ())) == sorted(topology.parties[:-2])
    assert [load.party for load in topology.loads] == list(topology.parties[:-2])
    for load in topology.loads:
        assert load.flops <= load.flops_budget and load.memory <= load.memory_budget
    for number, part in enumerate(parts_of(topology)):
        graph = trace(told.trained.net.module(), SHAPE)
        tiles = tiles_of(graph, "output", 3)
        assert {p.party for p in part.slices} <= set(topology.replicas[number])
        assert [(p.layer, p.units) for p in part.slices] == [(t.layer, t.units) for t in tiles]


def test_no_step_asks_more_of_a_device_than_its_load():
    """Not even one whose rows all lie with one replica."""
    told = trained(regime(2, batch=2, crowd=Uniform(devices=4), epochs=1), NET, SHAPE, count=20)
    groups, _ = groups_of(told)
    assert any(max(rows) == 2 for rows in rows_by_replica(told).values())
    for group in groups:
        assert group.problem.batch == 2 and sum(group.problem.shares) == 1


def test_dealing_balances_hosts_then_compute_then_records():
    strong, weak = Device(compute=8.0), Device(compute=1.0)
    assert dealt([strong, weak, weak, strong], [1, 1, 1, 1], 2) == ((0, 1), (2, 3))
    idle = replace(weak, hosts=False)
    groups = dealt([strong, strong, idle, idle, idle, idle], [0, 0, 9, 1, 4, 4], 2)
    assert groups == ((0, 2), (1, 3, 4, 5))
    mere = replace(strong, owns=False)
    groups = dealt([mere, weak, mere, weak], [0, 5, 0, 5], 2)
    assert [sum((0, 5, 0, 5)[k] for k in group) for group in groups] == [5, 5]
    endless = Device(compute=float("inf"))
    assert dealt([endless] * 4, [1] * 4, 2) == ((0, 2), (1, 3))


def test_a_group_has_hosts_and_records_as_long_as_there_are_enough():
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        count = int(torch.randint(2, 12, (), generator=rng))
        hosts, owns = torch.rand(2, count, generator=rng) < 0.5
        devices = [Device(hosts=bool(h), compute=float(k % 3)) for k, h in enumerate(hosts)]
        records = [int(own) * (k % 4 + 1) for k, own in enumerate(owns)]
        enough = int(min(hosts.sum(), owns.sum()))
        for replicas in range(1, enough + 1):
            groups = dealt(devices, records, replicas)
            assert sorted(sum(groups, ())) == list(range(count))
            assert all(any(hosts[k] for k in group) for group in groups)
            assert all(any(records[k] for k in group) for group in groups)


def test_a_group_owns_its_part_of_the_records():
    told = trained(regime(2, epochs=1, crowd=Uniform(devices=5)), NET, SHAPE)
    groups, _ = groups_of(told)
    assert [group.share for group in groups] == [Fraction(3, 5), Fraction(2, 5)]
    pieces = sum(
        (
            slices_of(tiles_of(trace(told.trained.net.module(), SHAPE), "output", 3), g.slicing)
            for g in groups
        ),
        (),
    )
    assert pieces == told.trained.topology.slices
    assert isinstance(CrowdRouter(parts_of(told.trained.topology)[0]), CrowdRouter)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"replicas": 0}, r"regime.replicas=0; expected a whole number of at least 1.*regime.replicas=1"),
        ({"replicas": 1.5}, r"regime.replicas=1.5; expected"),
        ({"every": 0}, r"regime.average_every=0; expected a whole number of at least 1 step"),
        ({"replicas": 7}, r"regime.replicas=7: of 6 devices 6 may host.*regime.replicas=6"),
        ({"crowd": Uniform(devices=6, hosts=1)}, r"of 6 devices 1 may host.*regime.replicas=1"),
        ({"crowd": Uniform(devices=6, owners=1)}, r"of 6 devices 1 hold records.*regime.replicas=1"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        trained(regime(**settings), NET, SHAPE)


def test_a_group_that_cannot_afford_the_network_is_refused():
    told = trained(regime(6, epochs=1), NET, SHAPE)
    small = Device(memory=0.9 * min(load.memory for load in told.trained.topology.loads))
    crowd = Uniform(devices=6, device=small)
    trained(regime(2, crowd=crowd, epochs=1), NET, SHAPE)
    with pytest.raises(BudgetError, match=r"replica 0 of 6 \(devices 0\): .*regime.replicas=5"):
        trained(regime(6, crowd=crowd), NET, SHAPE)


def test_batch_norm_is_refused():
    with pytest.raises(UsageError, match=r"regime.replicas=2: '2' is a batch norm.*group norm"):
        trained(regime(), Spec("test_replicas.normed"), (6,), classes=3)


def normed():
    layers = [nn.Linear(6, 8), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)]
    return nn.Sequential(*layers)


@pytest.mark.slow
def test_the_table_of_the_page_is_what_its_code_prints(capsys):
    page = (Path(__file__).parents[2] / "docs" / "replicas.md").read_text(encoding="utf-8")
    exec(page.split("```python\n")[1].split("```")[0], {})  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    told = page.split("| all, kB |")[1].split("\n\n")[0].strip().splitlines()[1:]
    assert len(printed) == len(told) == 5
    for one, other in zip(printed, told, strict=True):
        numbers = [
            [float(n.replace(",", "")) for n in line.split("|")[1:-1]] for line in (one, other)
        ]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.1)  # slicers get better
