"""Insiders of a SliceNet crowd: hosts, coalitions of hosts, the coordinator, owners."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Party, Seat, Threat, Topology
from privbench.errors import UsageError
from privbench.threats.coalition import worst_of
from privbench.threats.knowledge import EARLY, KNOWN, from_start

TRAFFIC = (
    "activation",
    "partial_sum",
    "gradient",
    "stem_weights",
    "tail_weights",
    "slice_weights",
    "labels",
    "norm",
)


def _hosts(topology: Topology) -> tuple[Party, ...]:
    """Hosts, where a crowd trains: the server of split learning is no device among many."""
    return topology.hosts() if "coordinator" in topology.parties else ()


def _knowledge(topology: Topology, parties: Collection[Party]) -> tuple[frozenset[str], str]:
    """Grants and pairs of devices that pool what they know.

    Owners of samples know the stem. Whoever hosts a layer that the stem feeds therefore knows all
    weights before what it sees; behind other people's layers only its own samples give pairs. Where
    labels are shared, whoever hosts the last layer is sent them.
    """
    hosted = {name for party in parties for name in topology.hosted(party)}
    first = next((layer for layer in topology.layers if layer.name in hosted), None)
    owns = any(party in topology.owners for party in parties)
    told = topology.labels == "shared" and topology.layers[-1].name in hosted
    grants = KNOWN | {"own_weights"} | ({"own_samples"} if owns else set())
    grants |= {"labels"} if told else set()
    if first is None or not owns:
        return frozenset(grants), "none"
    fed_by_stem = all(topology.layer(name).place == "stem" for name in first.inputs)
    if fed_by_stem:
        return frozenset(grants | {"prefix_weights"}), "prefix"
    return frozenset(grants), "own"


@dataclass(frozen=True, kw_only=True)
class Host(Threat):
    """One device that computes a slice of the network. Every host is a seat of its own."""

    name: ClassVar[str] = "host"
    kinds: ClassVar[tuple[str, ...]] = TRAFFIC
    stronger: ClassVar[tuple[tuple[str, object], ...]] = EARLY

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """Every host of a crowd."""
        found = []
        for party in _hosts(topology):
            grants, pairs = _knowledge(topology, (party,))
            grants |= from_start(self.steps)
            found.append(Seat(party, "peer", (party,), grants=grants, pairs=pairs))
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Hosts(Threat):
    """Hosts that collude: a random draw, those that see most together, or those that are named.

    Args:
        fraction: share of the hosts that are drawn.
        draw: seed of the draw; ``worst`` = those that together are sent the largest share of the
            shallowest layers, by greedy search in the slicing, which is public.
        devices: names instead of a draw, for example ``[device-3, device-7]``.
    """

    name: ClassVar[str] = "hosts"
    kinds: ClassVar[tuple[str, ...]] = TRAFFIC
    stronger: ClassVar[tuple[tuple[str, object], ...]] = EARLY

    fraction: float = 0.25
    draw: int | str = 0
    devices: tuple[Party, ...] = ()

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The coalition, as one seat."""
        hosts = _hosts(topology)
        if not hosts:
            return ()
        named = (self.devices,) if isinstance(self.devices, str) else tuple(self.devices or ())
        parties = named or self._drawn(topology, hosts)
        strangers = [party for party in parties if party not in hosts]
        if strangers:
            raise UsageError(
                f"threat.devices names {strangers}, which host nothing; hosts are {', '.join(hosts)}"
            )
        grants, pairs = _knowledge(topology, parties)
        worst = "worst " if self.draw == "worst" and not named else ""
        name = f"{worst}{len(parties)} of {len(hosts)} hosts"
        return (Seat(name, "peer", parties, grants=grants | from_start(self.steps), pairs=pairs),)

    def _drawn(self, topology: Topology, hosts: tuple[Party, ...]) -> tuple[Party, ...]:
        if self.fraction is None or not 0 < self.fraction <= 1:
            raise UsageError(
                f"threat.fraction={self.fraction}; expected a share above 0, at most 1"
            )
        count = max(1, round(self.fraction * len(hosts)))
        if self.draw == "worst":
            return worst_of(topology, hosts, count)
        if type(self.draw) is not int:
            raise UsageError(
                f"threat.draw={self.draw}; expected a seed, for example threat.draw=1, or worst"
            )
        rng = torch.Generator().manual_seed(self.draw)
        chosen = torch.randperm(len(hosts), generator=rng)[:count].sort().values
        return tuple(hosts[i] for i in chosen.tolist())


@dataclass(frozen=True, kw_only=True)
class Coordinator(Threat):
    """Sums stem and tail gradients and broadcasts the new stem and tail; sees no activation.

    Args:
        stale_weights: it also holds the released model, and uses it on earlier traffic. Without
            (and after step 0) it lacks the body and cannot invert a gradient through the loss.
    """

    name: ClassVar[str] = "coordinator"
    kinds: ClassVar[tuple[str, ...]] = (
        "stem_gradient",
        "tail_gradient",
        "stem_weights",
        "tail_weights",
        "norm",
    )

    stronger: ClassVar[tuple[tuple[str, object], ...]] = (
        ("stale_weights", True),
        ("steps", "first:8"),
    )

    stale_weights: bool = False

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The coordinator, where there is one."""
        if "coordinator" not in topology.parties:
            return ()
        stale = {"stale_weights"} if self.stale_weights else set()
        grants = KNOWN | stale | from_start(self.steps)
        return (Seat("coordinator", "infrastructure", ("coordinator",), grants=grants),)


@dataclass(frozen=True, kw_only=True)
class Owner(Threat):
    """A participant that knows what each broadcast tells: the aggregate update between two steps.

    By default it looks at the first steps, where the public initial weights complete the network.
    """

    name: ClassVar[str] = "owner"
    kinds: ClassVar[tuple[str, ...]] = ("stem_weights", "tail_weights")

    steps: str = "first:2"

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """Every owner of samples in a crowd."""
        if "coordinator" not in topology.parties:
            return ()
        grants = KNOWN | {"own_samples"} | from_start(self.steps)
        return tuple(Seat(party, "peer", (party,), grants=grants) for party in topology.owners)
