"""What a slicing costs, device by device and link by link: for tables and maps."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from math import prod

from privbench.contract import Load, Party, Traffic
from privbench.slicenet.links import OWNER, Link, Links
from privbench.slicenet.problem import Problem, Slicing


def loads_of(problem: Problem, slicing: Slicing) -> tuple[Load, ...]:
    """What each device spends in a step in which it owns as many rows as it may."""
    found = []
    for number, device in enumerate(problem.devices):
        hosted = slicing.hosted(number)
        flops, memory = problem.flops(number, hosted), problem.memory(number, hosted)
        party = problem.parties[number]
        found.append(Load(party, flops, device.compute, memory, device.memory))
    return tuple(found)


def traffic_of(problem: Problem, slicing: Slicing) -> tuple[Traffic, ...]:
    """Bytes per sample between each two devices; all together they are the ``volume``."""
    links = Links(problem.layers, slicing.slices(problem))
    numbers: defaultdict[tuple[Party, Party], Fraction] = defaultdict(Fraction)
    for layer in links.travelling:
        size = prod(layer.shape[1:])
        for link in links.links(layer.name):
            for pair, share in _between(link, problem):
                numbers[pair] += len(link.units) * size * share
        if links.tiled(layer.name) == "input":
            vertex = next(v for v in problem.vertices if v.layer == layer.name)
            reducer = links.reducer(layer.name)
            for host in links.hosts(layer.name):
                if host != reducer:
                    numbers[_pair(host, reducer)] += vertex.output
    order = {party: place for place, party in enumerate(problem.parties)}
    found = sorted(numbers.items(), key=lambda item: [order[party] for party in item[0]])
    return tuple(
        Traffic(*pair, float(2 * count * problem.element)) for pair, count in found if count
    )


def _between(link: Link, problem: Problem) -> list[tuple[tuple[Party, Party], Fraction]]:
    """The pairs of devices that a link stands for, with the share of rows that each carries."""
    ends = {link.sender, link.receiver} - {OWNER}
    if OWNER not in (link.sender, link.receiver):
        return [(_pair(link.sender, link.receiver), Fraction(1))]
    (device,) = ends
    return [
        (_pair(owner, device), share)
        for owner, share in zip(problem.parties, problem.shares, strict=True)
        if owner != device
    ]


def _pair(one: Party, other: Party) -> tuple[Party, Party]:
    """The two, the lower number first: a link has no direction here."""
    first, second = sorted((one, other), key=lambda party: int(party.rpartition("-")[2]))
    return first, second
