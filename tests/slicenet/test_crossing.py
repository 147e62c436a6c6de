"""Weights that cross a tap are known to it, and whoever holds an older stem uses that."""

from dataclasses import replace

import pytest
import torch
from crowds import Deals, mlp, trained
from outages import DEEP, SHAPE, regime

from attacks.reconstruction.ridge_decoder import RidgeDecoder
from privbench.contract import Net, Public, Seat
from privbench.errors import NotApplicable
from privbench.threats.crowd import Host
from privbench.threats.network import Link
from privbench.threats.network import Wire as WireThreat
from privbench.toolkit.prefix import Prefixes
from privbench.views import Facts, views_of
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire

WIDE = mlp(6, 6, 8, 8, 8, 4)


def run(folder, spec=WIDE, capture=None, **settings):
    """A small crowd: told, and recorded."""
    made = regime(**settings)
    told = trained(made, spec, SHAPE, dtype=torch.float32)
    tap = Recorder(folder, capture or Capture(first=1000))
    line = Wire((tap,))
    rng = torch.Generator().manual_seed(told.seed)
    made.train(Net(spec), Deals(told.population.train), line, rng, "cpu")
    tap.close()
    return told, Transcript(folder)


def views(told, transcript, threat, seats=None, encrypted=False):
    people = told.population.train
    facts = Facts(Public(), lambda rows: people[: len(rows)], lambda rows, own: rows, lambda s: ())
    topology = replace(told.trained.topology, encrypted=encrypted)
    chosen = threat.seats(topology) if seats is None else seats
    return views_of(transcript, topology, threat, chosen, RidgeDecoder(), facts)


def same_prefix(found, state):
    for name, tensor in found.state.items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize(
    "tiling", [pytest.param("output", marks=pytest.mark.slow), "input", "grid"]
)
def test_who_taps_every_link_knows_what_slices_cross_it(tiling, tmp_path):
    told, transcript = run(tmp_path, tiling=tiling)
    topology, states = told.trained.topology, told.tap.states
    (view,) = views(told, transcript, WireThreat(steps="all"))
    prefixes, deepest = Prefixes(topology, view.weights), topology.layers[-2].name
    same_prefix(prefixes.at(deepest, 0), states[0])
    after = prefixes.at(deepest, topology.steps)  # what hosts hand in
    body = {n: t for n, t in after.state.items() if not n.startswith("linear0")}
    for name, tensor in body.items():
        assert torch.equal(tensor, told.trained.net.weights[name])


def test_nobody_knows_what_crosses_in_cipher(tmp_path):
    told, transcript = run(tmp_path)
    seat = Seat("wire", "network", everything=True)
    (view,) = views(told, transcript, WireThreat(steps="all"), [seat], encrypted=True)
    assert view.weights == () and view.messages == ()


def test_a_link_knows_the_copies_that_cross_it(tmp_path):
    faults = {"schedule": [[8, 1, "drop"]], "copy_every": 3}
    told, transcript = run(tmp_path, tiling="input", faults=faults)
    topology = told.trained.topology
    copy = next(h for h in topology.handovers if h.reason == "copy" and h.step == 3)
    seat = Seat("link", "network", links=((copy.sender, copy.receiver),))
    (view,) = views(told, transcript, Link(steps="all"), [seat])
    known = {(w.layer, w.units, w.columns) for w in view.weights if w.step == 3}
    ends = {copy.sender, copy.receiver}
    three = (h for h in topology.handovers if h.step == 3)
    crossed = [h.home for h in three if {h.sender, h.receiver} == ends]
    homes = [s for s in topology.slices if s.party in crossed]
    assert {(s.layer, s.columns) for s in homes} <= {(name, columns) for name, _, columns in known}
    state = told.tap.states[3]
    for each in view.weights:
        for name, tensor in each.tensors.items():
            whole = state[name] if each.step == 3 else None
            if whole is not None:
                rows = whole[list(each.units)]
                rows = rows if each.columns is None else rows[:, list(each.columns)]
                assert torch.equal(tensor, rows)


def test_every_pair_that_sends_something_has_a_link_seat(tmp_path):
    for tiling, faults in (
        ("output", {"schedule": [[8, 1, "drop"], [13, 1, "return"]], "copy_every": 3}),
        ("input", {"drop_rate": 0.2, "return_after": 2, "copy_every": 4}),
    ):
        told = trained(regime(tiling=tiling, faults=faults, devices=6), DEEP, SHAPE)
        crossed = {
            frozenset((m.sender, m.receiver))
            for m in told.tap.cut()
            if m.sender.startswith("device-") and m.receiver.startswith("device-")
        }
        topology = told.trained.topology
        seats = [frozenset(seat.links[0]) for seat in Link().seats(topology)]
        usual = {frozenset((each.one, each.other)) for each in topology.traffic}
        assert len(set(seats)) == len(seats) and crossed <= set(seats)
        assert crossed - usual, "the test is void where no link was opened"
        unsent = set(seats) - crossed - usual
        assert unsent <= {frozenset((h.sender, h.receiver)) for h in topology.handovers} | {
            frozenset((host, owner)) for host in topology.hosts() for owner in topology.owners
        }


def test_a_host_knows_the_stem_of_its_own_steps_and_else_the_last_that_it_was_sent(tmp_path):
    told, transcript = run(tmp_path, DEEP, devices=6)
    topology, states = told.trained.topology, told.tap.states
    tested = 0
    for view in views(told, transcript, Host(steps="all")):
        number = topology.owners.index(view.seat.name)
        mine = [step for step, owners in told.tap.owners.items() if bool((owners == number).any())]
        sent = {0, *mine}  # initial weights are public
        prefixes = Prefixes(topology, view.weights)
        for step in range(topology.steps):
            last = max(each for each in sent if each <= step)
            stem = prefixes.at("linear0", step)
            same_prefix(stem, states[last])
            tested += last < step
    assert tested


def test_who_owns_nothing_is_sent_no_stem(tmp_path):
    told, transcript = run(tmp_path, DEEP)
    (view,) = views(told, transcript, Host(steps="all"), [Seat("x", "peer", ("device-9",))])
    with pytest.raises(NotApplicable, match="does not know 'linear0"):
        Prefixes(told.trained.topology, view.weights).at("linear0", 3)
