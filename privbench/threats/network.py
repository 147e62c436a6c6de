"""Eavesdroppers: on one link each, or on all. On an encrypted wire they see sizes and times alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import ClassVar

from privbench.contract import KINDS, Party, Seat, Threat, Topology
from privbench.errors import UsageError
from privbench.slicenet.links import OWNER, Links
from privbench.slicenet.links import Link as Linked
from privbench.threats.knowledge import KNOWN, from_start

Pair = tuple[Party, Party]


@dataclass(frozen=True, kw_only=True)
class Wire(Threat):
    """Taps every link, the broadcasts of stem weights included."""

    name: ClassVar[str] = "wire"
    kinds: ClassVar[tuple[str, ...]] = KINDS

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The one seat on all links, where anybody has a link."""
        if len(topology.parties) < 2:
            return ()
        broadcasts = "coordinator" in topology.parties and not topology.encrypted
        grants = KNOWN | ({"prefix_weights"} if broadcasts else set())
        pairs = "prefix" if broadcasts else "none"
        return (Seat("wire", "network", everything=True, grants=frozenset(grants), pairs=pairs),)


def telling(topology: Topology) -> Iterator[Pair]:
    """Pairs of devices of which one is sent the other's labels."""
    order = {party: number for number, party in enumerate(topology.parties)}
    last = topology.layers[-1].name if topology.labels == "shared" else ""
    for scorer in (piece.party for piece in topology.slices if piece.layer == last):
        mine = topology.replica(scorer)
        for owner in topology.owners:
            if owner != scorer and topology.replica(owner) == mine:
                one, other = sorted((scorer, owner), key=order.__getitem__)
                yield one, other


def opened(topology: Topology, usual: Collection[Pair]) -> tuple[Pair, ...]:
    """Pairs of devices that send each other something only because slices changed hands.

    Args:
        usual: those that do while nobody fails.
    """
    order = {party: number for number, party in enumerate(topology.parties)}
    found = {frozenset((each.sender, each.receiver)) for each in topology.handovers}
    for step in topology.changes():
        pieces = topology.slices_at(step)
        homes = zip(topology.slices, pieces, strict=True)
        moved = {piece.party for home, piece in homes if home.party != piece.party}
        links = Links(topology.layers, pieces)
        for layer in topology.layers:
            for link in links.links(layer.name, near={*moved, OWNER}):
                found.update(_ends(link, topology, moved))
            for each in links.sums(layer.name):
                pairs = (frozenset((each.reducer, other)) for other in each.others)
                found.update(pair for pair in pairs if pair & moved)
        if links.scorer in moved:
            found.update(frozenset((links.scorer, owner)) for owner in topology.owners)
    devices = {party for party in order if party.startswith("device-")}
    new = found - {frozenset(pair) for pair in usual}
    fresh = [pair for pair in new if pair <= devices and len(pair) == 2]
    numbered = sorted(sorted(order[end] for end in pair) for pair in fresh)
    return tuple((topology.parties[one], topology.parties[other]) for one, other in numbered)


def _ends(link: Linked, topology: Topology, moved: Collection[Party]) -> Iterator[frozenset[Party]]:
    """Who is at the two ends, where one of them has taken over slices."""
    ends = {link.sender, link.receiver}
    if OWNER not in ends:
        yield frozenset(ends)
        return
    (host,) = ends - {OWNER} or {OWNER}
    if host in moved:
        yield from (frozenset((host, owner)) for owner in topology.owners if owner != host)


@dataclass(frozen=True, kw_only=True)
class Link(Threat):
    """Taps the link between two devices. Every link that carries activations, or labels, is a seat.

    It knows no weights but the public initial ones and the slices that cross it (copies, replicas'
    averages), so it can decode what it sees at step 0 (``threat.steps=first:N``), and later steps as
    far as the weights have not moved on.

    Args:
        link: numbers of two devices, for example ``[3, 7]``: that link alone; None = every link.
    """

    name: ClassVar[str] = "link"
    kinds: ClassVar[tuple[str, ...]] = KINDS
    stronger: ClassVar[tuple[tuple[str, object], ...]] = (("steps", "first:8"),)

    link: tuple[int, int] | None = None

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """A seat on each link."""
        grants = KNOWN | from_start(self.steps)
        pairs = "prefix" if "initial_weights" in grants else "none"
        return tuple(
            Seat(f"{one}–{other}", "network", links=((one, other),), grants=grants, pairs=pairs)
            for one, other in self._links(topology)
        )

    def _links(self, topology: Topology) -> tuple[Pair, ...]:
        if self.link is None:
            there = frozenset(topology.parties)
            each = [(traffic.one, traffic.other) for traffic in topology.traffic]
            usual = tuple(pair for pair in each if there.issuperset(pair))
            if len(usual) == len(each):  # else sums over many links stand under one name
                usual = tuple(dict.fromkeys((*usual, *telling(topology))))
            return (*usual, *opened(topology, usual))
        if not isinstance(self.link, tuple) or [type(end) for end in self.link] != [int, int]:
            shown = list(self.link) if isinstance(self.link, tuple) else self.link
            raise UsageError(
                f"threat.link={shown}; expected the numbers of two devices, for example "
                "threat.link=[3,7], or null for every link"
            )
        one, other = (f"device-{number}" for number in self.link)
        devices = [party for party in topology.parties if party.startswith("device-")]
        for party in (one, other):
            if devices and party not in devices:
                raise UsageError(
                    f"threat.link={list(self.link)}: there is no '{party}'; "
                    f"devices are 0 to {len(devices) - 1}"
                )
        return ((one, other),) if devices else ()
