"""The simplest repair: off overfull devices, to whoever is burdened least."""

from __future__ import annotations

from privbench.errors import BudgetError
from privbench.slicenet.problem import Gap, Problem, Slicing
from privbench.slicenet.slicers.loads import Loads, check_owners


def repaired(problem: Problem, slicing: Slicing) -> Slicing:
    """The same slicing with vertices moved until every budget is kept; volume is not looked at.

    Device by device, in order: while one is overfull its vertices are moved off, from its last in
    the forward order to its first, each to the device that can take it and is then burdened least.
    No vertex is moved for the sake of another one, so that a tight crowd may be refused which a
    better repair would serve (ours).

    Raises:
        BudgetError: a device stays overfull; names it, the constraint and the gap.
    """
    check_owners(problem)
    loads, hosts = Loads(problem, slicing.hosts), list(slicing.hosts)
    mine: list[list[int]] = [[] for _ in problem.devices]
    for number, host in enumerate(hosts):
        mine[host].append(number)
    for device in range(len(mine)):
        for number in reversed(mine[device]):
            if not _overfull(problem, loads, device):
                break
            loads.take(number, device)
            place = loads.least(loads.after(number))
            hosts[number] = device if place is None else place
            loads.put(number, hosts[number])
        gap = _overfull(problem, loads, device)
        if gap:
            raise BudgetError(
                f"no device can take what is too much for another: {gap}; give devices more, use "
                "more of them (crowd.devices=...), a smaller regime.granularity, or slicer=hypergraph"
            )
    return Slicing(tuple(hosts))


def _overfull(problem: Problem, loads: Loads, device: int) -> Gap | None:
    """The constraint that a device breaks most; one that hosts nothing has no compute to give."""
    profile = problem.devices[device]
    if not profile.hosts and loads.counts[device]:
        return Gap(device, "compute", float(loads.now().flops[device]), 0.0)
    return loads.gap(device)
