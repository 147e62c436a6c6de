"""What several replicas of a network send, and who sees it."""

from dataclasses import dataclass, replace

import pytest
import torch
from crowds import EVERYTHING, Keeps, trained
from replicated import (
    CONV,
    NET,
    ROWS,
    SHAPE,
    TRAFFIC,
    cut,
    named,
    regime,
    rows_by_replica,
    slice_bytes,
)
from twin import Twin

from attacks.reconstruction.ridge_decoder import RidgeDecoder
from privbench.contract import MessageDefense, Public, Seat
from privbench.slicenet.replica_lines import ReplicaRouter, parts_of, replica_of_owners
from privbench.threats.crowd import Host
from privbench.views import Facts, views_of
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire


@pytest.mark.parametrize(
    "tiling, labels",
    [
        ("output", "tail"),
        ("input", "tail"),
        pytest.param("output", "shared", marks=pytest.mark.slow),
        pytest.param("input", "logits", marks=pytest.mark.slow),
    ],
)
def test_each_replica_sends_what_its_twin_sends_on_its_rows(tiling, labels):
    """A device-by-device twin takes each step alone, on the rows and weights of one replica."""
    crowd = regime(every=3, tiling=tiling, labels=labels, epochs=1, batch=10)
    told = trained(crowd, CONV, (1, 8, 8))
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
