"""Which hosts see most together, found without looking at anything that they saw."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from privbench.contract import Party, Topology

Place = tuple[int, str]
"""A replica, which has rows of its own, and a layer."""

Gain = tuple[float, ...]
"""Shares of channels that a host adds, shallowest layer first."""


def worst_of(topology: Topology, hosts: Sequence[Party], count: int) -> tuple[Party, ...]:
    """Hosts that reach the largest share of the shallowest layers, by greedy search.

    The first layer decides, later ones where that is equal: the earlier a layer, the more of the input
    is left in it. Shares of replicas are averaged. Where nobody adds anything, who owns samples comes
    first (it is sent the stem), then whoever comes first. That each host adds at most what it
    added to a smaller coalition spares most comparisons (M. Minoux: Accelerated greedy algorithms for
    maximizing submodular set functions, 1978, https://doi.org/10.1007/BFb0006528).

    Args:
        hosts: to choose from.
        count: of hosts that are chosen.

    Returns:
        they, in the order of ``hosts``.
    """
    reach = _reach(topology)
    depth = {layer.name: number for number, layer in enumerate(topology.layers)}
    seen: dict[Place, int] = {}
    replicas = max(1, len(topology.replicas))
    layers = {layer.name: layer for layer in topology.layers}

    def gain(party: Party) -> Gain:
        found = [0.0] * len(layers)
        for (replica, name), units in reach.get(party, {}).items():
            fresh = units & ~seen.get((replica, name), 0)
            found[depth[name]] -= fresh.bit_count() / layers[name].channels / replicas
        return tuple(found)

    owners = set(topology.owners)
    waiting = [(gain(party), party not in owners, n) for n, party in enumerate(hosts)]
    heapify(waiting)
    chosen: list[int] = []
    while waiting and len(chosen) < count:
        _, stranger, number = heappop(waiting)
        now = gain(hosts[number]), stranger, number
        if waiting and now > waiting[0]:
            heappush(waiting, now)
            continue
        chosen.append(number)
        for place, units in reach.get(hosts[number], {}).items():
            seen[place] = seen.get(place, 0) | units
    return tuple(hosts[number] for number in sorted(chosen))


def _reach(topology: Topology) -> dict[Party, dict[Place, int]]:
    """Channels of each layer that a host is sent, a bit each; those of slices it takes over too."""
    channels = {layer.name: layer.channels for layer in topology.layers}
    found: dict[Party, dict[Place, int]] = {}
    takers: dict[Party, set[Party]] = {}
    for each in topology.handovers:
        if each.reason != "copy":
            takers.setdefault(each.home, set()).add(each.receiver)
    for piece in topology.slices:
        for need in piece.needs:
            place = topology.replica(piece.party), need.layer
            bits = _bits(need.units, channels[need.layer])
            for party in {piece.party} | takers.get(piece.party, set()):
                mine = found.setdefault(party, {})
                mine[place] = mine.get(place, 0) | bits
    return found


def _bits(units: Sequence[int] | None, channels: int) -> int:
    return (1 << channels) - 1 if units is None else sum(1 << unit for unit in units)
