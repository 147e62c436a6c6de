"""Which seats each adversary takes, and what a seat knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from privbench.contract import Seat, Threat, Topology
from privbench.errors import UsageError
from privbench.threats.active import (
    CoordinatorActive,
    HostActive,
    OwnerActive,
    ServerActive,
    SplitServerActive,
)
from privbench.threats.crowd import Coordinator, Host, Hosts, Owner
from privbench.threats.insider import Client, Server, SplitServer, Trainer
from privbench.threats.network import Link, Wire
from privbench.threats.outsider import Api, Released

PUBLIC = {"candidates", "auxiliary", "recipe"}
EVERYWHERE = frozenset({"slicenet", "centralized", "fedavg", "split"})

PLACES = [
    (Host(), "slicenet", ("device-0", "device-1", "device-3"), "peer"),
    (Hosts(), "slicenet", ("1 of 3 hosts",), "peer"),
    (Coordinator(), "slicenet", ("coordinator",), "infrastructure"),
    (Owner(), "slicenet", ("device-0", "device-1", "device-2"), "peer"),
    (Link(link=(0, 1)), "slicenet", ("device-0–device-1",), "network"),
    (Trainer(), "centralized", ("trainer",), "infrastructure"),
    (Server(), "fedavg", ("server",), "infrastructure"),
    (Client(), "fedavg", ("client-0", "client-1", "client-2"), "peer"),
    (SplitServer(), "split", ("split_server",), "infrastructure"),
]


@pytest.mark.parametrize(
    ("threat", "home", "names", "column"), PLACES, ids=[place[0].name for place in PLACES]
)
def test_insiders_sit_in_their_own_regime_alone(
    threat: Threat, home: str, names: tuple[str, ...], column: str, every: dict[str, Topology]
) -> None:
    seats = threat.seats(every[home])
    assert tuple(seat.name for seat in seats) == names
    assert {seat.column for seat in seats} == {column}
    for regime in EVERYWHERE - {home}:
        assert threat.seats(every[regime]) == (), regime


@pytest.mark.parametrize("threat", [Released(), Api()], ids=lambda threat: threat.name)
def test_outsiders_are_the_same_for_every_regime(
    threat: Threat, every: dict[str, Topology]
) -> None:
    seats = {threat.seats(topology) for topology in every.values()}
    assert len(seats) == 1, "the released model would not be compared on equal terms"
    ((seat,),) = seats
    assert seat.column == "outsider"
    assert not threat.kinds, "an outsider sees no traffic"
    assert not set(seat.parties) & {party for one in every.values() for party in one.parties}


def test_answers_and_weights_exclude_each_other(crowd: Topology) -> None:
    (holder,) = Released().seats(crowd)
    (asker,) = Api().seats(crowd)
    (label_asker,) = Api(answers="labels").seats(crowd)
    assert holder.grants == PUBLIC | {"released_weights"}
    assert asker.grants == PUBLIC | {"oracle_probabilities"}
    assert label_asker.grants == PUBLIC | {"oracle_labels"}


def _by_name(threat: Threat, topology: Topology) -> dict[str, Seat]:
    return {seat.name: seat for seat in threat.seats(topology)}


def test_pairs_of_a_host_follow_from_where_it_stands(crowd: Topology) -> None:
    seats = _by_name(Host(), crowd)
    assert seats["device-0"].pairs == "prefix"  # the stem feeds it, and it owns samples
    assert seats["device-1"].pairs == "own"  # behind somebody else's layer
    assert seats["device-3"].pairs == "none"  # owns no sample, so gets no stem either
    assert seats["device-0"].grants == PUBLIC | {"own_weights", "own_samples", "prefix_weights"}
    assert seats["device-1"].grants == PUBLIC | {"own_weights", "own_samples"}
    assert seats["device-3"].grants == PUBLIC | {"own_weights"}


def test_a_coalition_pools_what_its_members_know(crowd: Topology) -> None:
    (seat,) = Hosts(devices=("device-1", "device-3")).seats(crowd)
    assert seat.parties == ("device-1", "device-3")
    assert seat.pairs == "prefix"  # device 1 brings the stem, device 3 the layer behind it
    (deep,) = Hosts(devices=("device-1",)).seats(crowd)
    assert deep.pairs == "own"


def test_a_drawn_coalition_has_its_share_and_follows_the_seed(crowd: Topology) -> None:
    draws = {Hosts(fraction=0.67, draw=draw).seats(crowd)[0].parties for draw in range(12)}
    assert {len(parties) for parties in draws} == {2}
    assert len(draws) > 1, "every draw gave the same coalition"
    assert Hosts(draw=3).seats(crowd) == Hosts(draw=3).seats(crowd)
    assert Hosts(fraction=0.01).seats(crowd)[0].parties, "at least one"


def test_the_coordinator_has_the_body_only_by_the_switch(crowd: Topology) -> None:
    (seat,) = Coordinator().seats(crowd)
    (stale,) = Coordinator(stale_weights=True).seats(crowd)
    assert seat.grants == PUBLIC
    assert stale.grants == PUBLIC | {"stale_weights"}
    assert "activation" not in Coordinator.kinds
    assert "gradient" not in Coordinator.kinds


@pytest.mark.parametrize("kind", [Host, Hosts, Coordinator, Owner])
def test_only_who_looks_at_the_start_knows_the_initial_weights(
    kind: type[Threat], crowd: Topology
) -> None:
    for steps, knows in (("first:2", True), ("all", True), ("epoch", False), ("last:3", False)):
        for seat in kind(steps=steps).seats(crowd):
            assert ("initial_weights" in seat.grants) is knows, steps


def test_an_owner_looks_at_the_start_and_sees_broadcasts_alone(crowd: Topology) -> None:
    assert Owner().looks_at((0, 1, 2, 3), 2) == (0, 1)
    assert set(Owner.kinds) == {"stem_weights", "tail_weights"}
    assert all(seat.grants >= {"own_samples", "initial_weights"} for seat in Owner().seats(crowd))


def test_federated_seats_hold_the_global_model(fedavg: Topology) -> None:
    (server,) = Server().seats(fedavg)
    assert server.grants == PUBLIC | {"model_weights"}
    for seat in Client().seats(fedavg):
        assert seat.grants == PUBLIC | {"model_weights", "own_samples"}
        assert seat.parties == (seat.name,)


def test_the_split_server_gets_pairs_only_as_a_declared_upper_bound(split: Topology) -> None:
    (seat,) = SplitServer().seats(split)
    assert seat.pairs == "none"
    assert seat.grants == PUBLIC | {"own_weights", "labels"}
    (bound,) = SplitServer(pairs="query").seats(split)
    assert bound.pairs == "query"


def test_the_wire_knows_the_stem_that_is_broadcast_in_the_clear(every: dict[str, Topology]) -> None:
    (seat,) = Wire().seats(every["slicenet"])
    assert seat.everything
    assert seat.pairs == "prefix"
    assert "prefix_weights" in seat.grants
    hidden = replace(every["slicenet"], encrypted=True)
    for topology in (hidden, every["fedavg"]):
        (seat,) = Wire().seats(topology)
        assert seat.pairs == "none"
        assert seat.grants == PUBLIC


def test_a_link_is_one_link(crowd: Topology) -> None:
    (seat,) = Link(link=(0, 2)).seats(crowd)
    assert seat.sees("device-0", "device-2")
    assert seat.sees("device-2", "device-0")
    assert not seat.sees("device-0", "device-1")
    assert not seat.sees("device-0", "coordinator")
    assert seat.grants == PUBLIC
    assert seat.pairs == "none"


def test_every_link_that_carries_something_is_a_seat(every: dict[str, Topology]) -> None:
    seats = Link().seats(every["slicenet"])
    assert [seat.links for seat in seats] == [
        (("device-0", "device-1"),),
        (("device-1", "device-3"),),
    ]
    assert {seat.pairs for seat in seats} == {"none"}
    assert Link().seats(every["fedavg"]) == ()


def test_a_link_knows_the_public_initial_weights_where_it_looks_from_the_start(
    crowd: Topology,
) -> None:
    for steps, pairs in (("first:2", "prefix"), ("all", "prefix"), ("last:2", "none")):
        for seat in Link(steps=steps).seats(crowd):
            assert seat.pairs == pairs
            assert ("initial_weights" in seat.grants) == (pairs == "prefix")
            assert "prefix_weights" not in seat.grants


@pytest.mark.parametrize(
    ("active", "listening", "regime"),
    [
        (HostActive(), Host(), "slicenet"),
        (OwnerActive(), Owner(), "slicenet"),
        (CoordinatorActive(), Coordinator(steps="first:8"), "slicenet"),
        (ServerActive(), Server(), "fedavg"),
        (SplitServerActive(), SplitServer(), "split"),
    ],
)
def test_who_tampers_knows_what_listeners_know(
    active: Threat, listening: Threat, regime: str, every: dict[str, Topology]
) -> None:
    assert active.tampers
    assert active.name == f"{listening.name}_active"
    assert active.seats(every[regime]) == listening.seats(every[regime]) != ()


def test_no_threat_that_listens_may_tamper() -> None:
    for threat in (place[0] for place in PLACES):
        assert not threat.tampers


@pytest.mark.parametrize(
    ("threat", "regime", "words"),
    [
        (Hosts(devices=("device-2",)), "slicenet", "hosts are device-0, device-1, device-3"),
        (Hosts(fraction=0.0), "slicenet", "threat.fraction=0.0"),
        (Hosts(fraction=1.5), "slicenet", "at most 1"),
        (Hosts(fraction=None), "slicenet", "threat.fraction=None"),
        (Hosts(devices="device-2"), "slicenet", "hosts are device-0, device-1, device-3"),
        (Link(link=(0, 9)), "slicenet", "devices are 0 to 3"),
        (Link(link=3), "slicenet", r"threat.link=3; expected the numbers of two devices"),
        (Link(link=(1, 2, 3)), "slicenet", r"threat.link=\[1, 2, 3\]; expected the numbers"),
        (SplitServer(pairs="own"), "split", "expected none or query"),
        (Api(answers="logits"), "centralized", "expected probabilities or labels"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    threat: Threat, regime: str, words: str, every: dict[str, Topology]
) -> None:
    with pytest.raises(UsageError, match=words):
        threat.seats(every[regime])
