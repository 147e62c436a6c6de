"""What a slicing costs, device by device and link by link: for tables and maps."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

from privbench.contract import Load, Traffic
from privbench.slicenet.problem import Flow, Problem, Slicing, needs_of


def loads_of(problem: Problem, slicing: Slicing) -> tuple[Load, ...]:
    """What each device spends in a step in which it owns as many rows as it may."""
    needs = needs_of(problem, slicing)
    return tuple(
        Load(party, float(flops), device.compute, float(memory), device.memory)
        for party, device, flops, memory in zip(
            problem.parties, problem.devices, needs.flops, needs.memory, strict=True
        )
    )


def traffic_of(problem: Problem, slicing: Slicing) -> tuple[Traffic, ...]:
    """Bytes per sample between each two devices; all together they are the ``volume``."""
    numbers: defaultdict[tuple[int, int], Fraction] = defaultdict(Fraction)
    for flow in problem.flows:
        for sender, receiver, count in _sent(problem, slicing, flow):
            numbers[min(sender, receiver), max(sender, receiver)] += count
    return tuple(
        Traffic(problem.parties[one], problem.parties[other], float(2 * count * problem.element))
        for (one, other), count in sorted(numbers.items())
        if count
    )


def _sent(problem: Problem, slicing: Slicing, flow: Flow) -> list[tuple[int, int, Fraction]]:
    """Sender, receiver and numbers a sample of a flow, forward only."""
    found: list[tuple[int, int, Fraction]] = []
    owners = [(owner, share) for owner, share in enumerate(problem.shares) if share]
    receivers = {slicing.hosts[number] for number in flow.targets}
    if not flow.sources:
        total = sum(flow.numbers)
        found += [(o, d, total * share) for d in receivers for o, share in owners]
    for number, count in zip(flow.sources, flow.numbers, strict=False):
        host = slicing.hosts[number]
        found += [(host, device, Fraction(count)) for device in receivers]
        if flow.to_owners:
            found += [(host, owner, count * share) for owner, share in owners]
    return [(sender, receiver, count) for sender, receiver, count in found if sender != receiver]
