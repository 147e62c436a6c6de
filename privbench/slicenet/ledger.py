"""What a slicing costs, device by device and link by link: for tables and maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from heapq import nlargest

from privbench.contract import Bill, Cost, Load, Party, Traffic
from privbench.slicenet.clock import COORDINATOR, Timing, timed
from privbench.slicenet.crowd import Device
from privbench.slicenet.problem import Flow, Problem, Slicing, needs_of

POOLED = 256  # devices: beyond, a link for each pair would fill the report and say little
KEPT = 4096  # links between hosts that are told one by one then
PAIRS = 1_000_000  # beyond, none is: to find the largest would take longer than to train
OWNERS, HOSTS = -1, -2  # ends of links that stand for many devices


def loads_of(problem: Problem, slicing: Slicing) -> tuple[Load, ...]:
    """What each device spends in a step in which it owns as many rows as it may."""
    needs = needs_of(problem, slicing)
    return tuple(
        Load(party, float(flops), device.compute, float(memory), device.memory)
        for party, device, flops, memory in zip(
            problem.parties, problem.devices, needs.flops, needs.memory, strict=True
        )
    )


def bill_of(
    problem: Problem,
    slicing: Slicing,
    *,
    rows: Sequence[int] | None = None,
    tail_flops: float = 0.0,
    coordinator: Device = COORDINATOR,
) -> Bill:
    """What a step of a sliced network costs each device; arguments as those of ``timed``.

    Stem and tail gradients count as ``owner_gradient``, their new weights as ``owner_weights``.
    Memory is that of a step in which each device owns as many rows as it may. The coordinator
    computes nothing that counts and is left out.
    """
    timing = timed(problem, slicing, rows=rows, tail_flops=tail_flops, coordinator=coordinator)
    memory = needs_of(problem, slicing).memory.tolist()
    costs = costs_of(problem.parties, timing, memory)
    return Bill("slicenet", float(problem.batch), timing.seconds, costs, timing.kinds)


def costs_of(parties: Sequence[Party], timing: Timing, memory: Sequence[float]) -> tuple[Cost, ...]:
    """A step in simulated time, party by party."""
    columns = (timing.flops, timing.sent, timing.received, memory, timing.busy, timing.joules)
    return tuple(
        Cost(party, *(float(number) for number in numbers))
        for party, *numbers in zip(parties, *columns, strict=True)
    )


def traffic_of(problem: Problem, slicing: Slicing) -> tuple[Traffic, ...]:
    """Bytes per sample between each two devices; all together they are the ``volume``.

    Beyond ``POOLED`` devices the owners' ends of links go under one name, ``owners``: what a host
    receives from and sends to the owners of others' rows. Then only the ``KEPT`` links between
    hosts with most traffic are told one by one, none where there are more than ``PAIRS``; each of
    the others goes under one of its two devices, beside ``hosts``. The sum of all stays the same.
    """
    pooled = len(problem.devices) > POOLED
    found: Links = defaultdict(int)
    for flow in problem.flows:
        _add_owners(found, problem, slicing, flow, pooled)
    made = [(_made(slicing, flow), _users(slicing, flow)) for flow in problem.flows]
    told = not pooled or sum(len(counts) * len(users) for counts, users in made) <= PAIRS
    for counts, users in made:
        for host, count in counts.items():
            if not told:
                found[HOSTS, host] += count * (len(users) - (host in users))
                continue
            for device in users:
                if device != host:
                    found[min(host, device), max(host, device)] += count
    if pooled:
        _fold(found)
    names = {OWNERS: "owners", HOSTS: "hosts", **dict(enumerate(problem.parties))}
    return tuple(
        Traffic(names[one], names[other], float(2 * count * problem.element))
        for (one, other), count in sorted(found.items())
        if count
    )


Links = defaultdict[tuple[int, int], Fraction | int]
"""Numbers a sample between two ends, forward only."""


def _made(slicing: Slicing, flow: Flow) -> dict[int, int]:
    """Numbers a sample of a flow that each host makes."""
    counts: defaultdict[int, int] = defaultdict(int)
    for number, count in zip(flow.sources, flow.numbers, strict=False):
        counts[slicing.hosts[number]] += count
    return counts


def _users(slicing: Slicing, flow: Flow) -> set[int]:
    return {slicing.hosts[number] for number in flow.targets}


def _add_owners(found: Links, problem: Problem, slicing: Slicing, flow: Flow, pooled: bool) -> None:
    """What passes between hosts and the owners of rows: for each owner, or for all of them."""
    counts: dict[int, int] = {}
    if not flow.sources:
        counts = dict.fromkeys(_users(slicing, flow), sum(flow.numbers))
    elif flow.to_owners:
        counts = _made(slicing, flow)
    for host, count in counts.items():
        if pooled:
            found[OWNERS, host] += count * (1 - problem.shares[host])
            continue
        for owner, share in enumerate(problem.shares):
            if share and owner != host:
                found[min(owner, host), max(owner, host)] += count * share


def _fold(found: Links) -> None:
    """Leave the links between hosts with most traffic."""
    links = [link for link in found if link[0] >= 0]
    kept = set(nlargest(KEPT, links, key=lambda link: (found[link], link)))
    for link in links:
        if link not in kept:
            found[HOSTS, link[0]] += found.pop(link)
