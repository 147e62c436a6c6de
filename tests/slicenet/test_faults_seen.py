"""What others see of a crowd whose devices fail: seats, copies, links, transcripts."""

from __future__ import annotations

from collections import Counter

import torch
from crowds import EVERYTHING, Deals, trained
from outages import DEEP, SHAPE, regime, run, same, weights

from attacks.reconstruction.ridge_decoder import RidgeDecoder
from privbench.contract import Net, Public, Seat
from privbench.threats.crowd import Host
from privbench.views import Facts, views_of
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire


def test_a_host_is_seen_where_it_hosts_and_knows_what_it_was_sent():
    plan = [[8, 1, "drop"], [13, 1, "return"]]
    told = run(faults={"schedule": plan, "copy_every": 3})
    topology = told.trained.topology
    buddy = next(each.receiver for each in topology.handovers if each.reason == "take_over")

    def makes(party, step):
        """Blocks of the first body layer whose activation a party sends."""
        seen = told.tap.cut(Seat(party, "peer", (party,)))
        return {
            m.units
            for m in seen
            if (m.step, m.kind, m.sender, m.layer) == (step, "activation", party, "linear1")
        }

    mine = {s.units for s in topology.slices if (s.party, s.layer) == ("device-1", "linear1")}
    assert mine and makes("device-1", 7) == makes("device-1", 13) == mine
    for step in (8, 12):
        assert mine <= makes(buddy, step) and not makes("device-1", step)
        parties = {m.sender for m in told.tap.cut() if m.step == step}
        parties |= {m.receiver for m in told.tap.cut() if m.step == step}
        assert "device-1" not in parties
    assert topology.hosts() == ("device-0", "device-1", "device-2")
    assert set(topology.hosted(buddy)) >= set(topology.hosted("device-1"))


def test_views_hold_copies_and_what_was_hosted_in_their_steps_alone(tmp_path):
    plan = [[8, 1, "drop"], [13, 1, "return"]]
    faults = {"schedule": plan, "copy_every": 3}
    tap, told = Recorder(tmp_path, Capture(first=1000)), run(faults=faults)
    people = Deals(told.population.train)
    rng = torch.Generator().manual_seed(1)
    regime(faults=faults).train(Net(DEEP), people, Wire((tap,)), rng, "cpu")
    tap.close()
    where = told.trained.topology
    buddy = next(each.receiver for each in where.handovers if each.reason == "take_over")
    facts = Facts(Public(), lambda rows: people.train[:0], lambda rows, owned: rows, lambda s: ())
    threat = Host(steps="all")
    seats = [seat for seat in threat.seats(where) if seat.name in ("device-1", buddy)]
    views = views_of(Transcript(tmp_path), where, threat, seats, RidgeDecoder(), facts)
    foreign = {s.units for s in where.slices if (s.party, s.layer) == ("device-1", "linear1")}
    held = {view.seat.name: set() for view in views}
    for view in views:
        for each in view.weights:
            if each.layer == "linear1" and each.units in foreign:
                held[view.seat.name].add(each.step)
                rows = told.tap.states[each.step]["linear1.weight"][list(each.units)]
                assert torch.equal(each.tensors["linear1.weight"], rows)
    steps = set(range(where.steps))
    assert held["device-1"] == steps - {0, *range(8, 13)}, "step 0 is public as a whole"
    assert held[buddy] == {3, 6, *range(8, 13), 15, 18}
    for view in views:
        seen = {m.step for m in view.messages if m.kind == "activation"}
        assert seen == (steps - set(range(8, 13)) if view.seat.name == "device-1" else steps)


def test_what_crosses_is_what_is_counted_whoever_hosts():
    told = run(tiling="grid", faults={"schedule": [[8, 1, "drop"]], "copy_every": 3})
    crossed = Counter()
    for message in told.tap.cut():
        crossed[message.kind] += message.nbytes
    assert crossed == told.wire.bytes


def test_transcripts_of_failing_crowds_are_read_back(tmp_path):
    faults = {"drop_rate": 0.1, "return_after": 2, "copy_every": 4, "loss_rate": 0.02, "retries": 0}
    regimen, net = regime(faults=faults), Net(DEEP)
    told = trained(regimen, DEEP, SHAPE)
    tap = Recorder(tmp_path, Capture(first=1000))
    done = regimen.train(
        net, Deals(told.population.train), Wire((tap,)), torch.Generator().manual_seed(1), "cpu"
    )
    tap.close()
    assert same(done.net.weights, weights(told))
    script, wanted = Transcript(tmp_path), told.trained.topology
    assert script.topology.handovers == wanted.handovers
    steps = range(wanted.steps)
    for seat in (EVERYTHING, Seat("device-2", "peer", ("device-2",))):
        mine = {key(m): m.payload for m in told.tap.cut(seat)}
        kinds = {m.kind for m in told.tap.messages}
        read = {key(m): m.payload for m in script.seen_by(seat, steps, kinds)}
        assert mine.keys() == read.keys()
        assert all(torch.allclose(mine[each], read[each], atol=1e-12) for each in mine)


def key(message):
    ends = (message.step, message.kind, message.sender, message.receiver)
    return (*ends, message.layer, message.units, tuple(message.rows.tolist()))
