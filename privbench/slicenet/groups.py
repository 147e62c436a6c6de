"""How devices are dealt into replicas of the network, and the slicing problem of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from privbench.contract import Bill, Carried, Cost, Load, Party, Traffic
from privbench.errors import BudgetError, UsageError
from privbench.slicenet.clock import typical_rows
from privbench.slicenet.crowd import Device
from privbench.slicenet.ledger import bill_of, loads_of, traffic_of
from privbench.slicenet.problem import Problem, Slicing, check_budgets, needs_of, volume
from privbench.slicenet.queues import Queues
from privbench.slicenet.slicers.base import Slicer


@dataclass(frozen=True, eq=False)
class Group:
    """The devices of one replica, and how they share the network out.

    Args:
        devices: their numbers, rising.
        problem: of the whole crowd, in which devices of other groups host and own nothing.
        slicing: hosts are of the group.
        share: of all records that the group owns.
    """

    devices: tuple[int, ...]
    problem: Problem
    slicing: Slicing
    share: Fraction

    @property
    def parties(self) -> tuple[Party, ...]:
        """Names of its devices."""
        names = self.problem.parties
        return tuple(names[number] for number in self.devices)


def grouped(
    problem: Problem, records: Sequence[int], slicer: Slicer, replicas: int
) -> tuple[Group, ...]:
    """The crowd in groups, each of which hosts the whole body once.

    A step may happen to draw all its rows from the owners of one group, so each group must afford a
    whole batch (or all its records, if those are fewer).

    Args:
        records: of each device.

    Raises:
        UsageError: see ``dealt``.
        BudgetError: a group cannot afford the network.
    """
    if replicas == 1:
        slicing = slicer.slice(problem)
        check_budgets(problem, slicing)
        return (Group(tuple(range(len(records))), problem, slicing, Fraction(1)),)
    found = []
    for number, devices in enumerate(dealt(problem.devices, records, replicas)):
        part = _part(problem, records, devices)
        try:
            slicing = slicer.slice(part)
            check_budgets(part, slicing)
        except BudgetError as cause:
            raise BudgetError(
                f"replica {number} of {replicas} (devices {_listed(devices)}): {cause}; or use fewer "
                f"replicas (regime.replicas={replicas - 1})"
            ) from cause
        share = Fraction(sum(records[device] for device in devices), sum(records))
        found.append(Group(devices, part, slicing, share))
    return tuple(found)


def dealt(
    devices: Sequence[Device], records: Sequence[int], replicas: int
) -> tuple[tuple[int, ...], ...]:
    """Devices in disjoint groups: alike in number of hosts, then in compute, then in records (ours).

    Hosts that own records are dealt first, then mere hosts, both in falling order of compute and
    memory, each to the group with fewest hosts (among equals, least compute so far); then mere owners,
    in falling order of records, each to the group with fewest records. So no group lacks a host
    or records as long as there are enough of both. After the longest-processing-time rule of R. L. Graham,
    "Bounds on Multiprocessing Timing Anomalies", 1969, https://doi.org/10.1137/0117039; differs by
    counting hosts first.

    Raises:
        UsageError: there are fewer hosts, or fewer owners of records, than groups.
    """
    hosts = [number for number, device in enumerate(devices) if device.hosts]
    owners = [number for number, count in enumerate(records) if count]
    for able, words in ((hosts, "may host a slice"), (owners, "hold records")):
        if replicas > len(able):
            raise UsageError(
                f"regime.replicas={replicas}: of {len(devices)} devices {len(able)} {words}, and every "
                f"replica needs one; expected at most {len(able)}: type regime.replicas={len(able)}, "
                "or take a larger crowd (crowd.devices=...)"
            )
    groups: list[list[int]] = [[] for _ in range(replicas)]
    hosting, compute, held = ([0.0] * replicas for _ in range(3))
    falling = sorted(hosts, key=lambda n: (-devices[n].compute, -devices[n].memory, n))
    for device in sorted(falling, key=lambda n: not records[n]):  # stable: owners first
        to = min(range(replicas), key=lambda g: (hosting[g], compute[g], g))
        groups[to].append(device)
        hosting[to] += 1
        compute[to] += devices[device].compute
        held[to] += records[device]
    others = [number for number, device in enumerate(devices) if not device.hosts]
    for device in sorted(others, key=lambda n: (-records[n], n)):
        to = min(range(replicas), key=lambda g: (held[g], len(groups[g]), g))
        groups[to].append(device)
        held[to] += records[device]
    return tuple(tuple(sorted(group)) for group in groups)


def loads_of_groups(groups: Sequence[Group]) -> tuple[Load, ...]:
    """What each device spends in a step in which it owns as many rows as it may, by number."""
    found: dict[int, Load] = {}
    for group in groups:
        loads = loads_of(group.problem, group.slicing)
        found.update({number: loads[number] for number in group.devices})
    return tuple(found[number] for number in sorted(found))


def traffic_of_groups(groups: Sequence[Group]) -> tuple[Traffic, ...]:
    """Bytes per sample of the crowd between each two devices, without the averages of replicas.

    A sample crosses the links of one replica: the one that its owner belongs to.
    """
    if len(groups) == 1:
        return traffic_of(groups[0].problem, groups[0].slicing)
    found: defaultdict[tuple[Party, Party], float] = defaultdict(float)
    for group in groups:
        for each in traffic_of(group.problem, group.slicing):
            found[each.one, each.other] += each.nbytes * float(group.share)
    return tuple(Traffic(*ends, nbytes) for ends, nbytes in found.items() if nbytes)


def volume_of_groups(groups: Sequence[Group]) -> Fraction:
    """``volume`` of the crowd: the mean of its replicas', weighted by the records that they learn from."""
    return sum(
        (group.share * volume(group.problem, group.slicing) for group in groups), Fraction(0)
    )


def bill_of_groups(
    problem: Problem, groups: Sequence[Group], *, every: int, tail_flops: float = 0.0
) -> Bill:
    """What a typical step costs the crowd: replicas work side by side, and average now and then.

    The seconds are those of the replica that takes longest, and an average's divided by ``every``:
    hosts send their slices once the step is over, get the means back, and nobody computes meanwhile.

    Args:
        problem: of the whole crowd.
        every: steps between averages.
        tail_flops: as in ``timed``.
    """
    rows = typical_rows(problem)
    means = _averages(problem, groups)
    costs: dict[int, Cost] = {}
    kinds: defaultdict[str, float] = defaultdict(float)
    seconds = 0.0
    for group in groups:
        mine = [rows[n] if n in set(group.devices) else 0 for n in range(len(rows))]
        memory = needs_of(group.problem, group.slicing).memory.tolist()
        found = [Cost(party, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0) for party in problem.parties]
        if sum(mine):
            part = replace(group.problem, batch=sum(mine))
            bill = bill_of(part, group.slicing, rows=mine, tail_flops=tail_flops)
            found, seconds = list(bill.costs), max(seconds, bill.seconds)
            for each in bill.kinds:
                kinds[each.kind] += each.nbytes
        for number in group.devices:
            sent, received = float(means.sent[number]), float(means.received[number])
            sent, received = sent / every, received / every
            costs[number] = replace(
                found[number],
                sent=found[number].sent + sent,
                received=found[number].received + received,
                memory=memory[number],
                joules=found[number].joules + problem.devices[number].joules(0.0, sent + received),
            )
    for kind, nbytes in means.kinds.items():
        kinds[kind] += nbytes / every
    return Bill(
        "slicenet",
        float(problem.batch),
        float(seconds + means.end / every),
        tuple(costs[number] for number in sorted(costs)),
        tuple(Carried(kind, nbytes) for kind, nbytes in sorted(kinds.items())),
    )


def _averages(problem: Problem, groups: Sequence[Group]) -> Queues:
    """One average of all slices, in which every replica saw rows: to the first replica and back."""
    queues = Queues(problem.devices)
    first, *others = groups
    pairs: defaultdict[int, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
    for group in others:
        for vertex, to, source in zip(
            problem.vertices, first.slicing.hosts, group.slicing.hosts, strict=True
        ):
            pairs[to][source] += float(vertex.parameters * problem.element)
    for to, sizes in pairs.items():
        senders, nbytes = np.array(list(sizes)), np.array(list(sizes.values()))
        there = queues.gather(senders, to, nbytes, np.zeros(len(senders)), "slice_weights")
        queues.cast(to, senders, nbytes, float(there.max()), "slice_weights")
    return queues


def _part(problem: Problem, records: Sequence[int], devices: Sequence[int]) -> Problem:
    """The problem of one group: the others' devices host and own nothing."""
    inside = set(devices)
    owned = sum(records[device] for device in devices)
    return replace(
        problem,
        devices=tuple(
            device if number in inside else replace(device, hosts=False)
            for number, device in enumerate(problem.devices)
        ),
        shares=tuple(
            Fraction(count, owned) if number in inside else Fraction(0)
            for number, count in enumerate(records)
        ),
        batch=min(problem.batch, owned),
        own_rows=tuple(
            rows if number in inside else 0 for number, rows in enumerate(problem.own_rows)
        ),
    )


def _listed(devices: Sequence[int]) -> str:
    shown = ", ".join(str(device) for device in devices[:8])
    return shown + (", ..." if len(devices) > 8 else "")
