"""From any seed to a slicing within budgets; what cannot be, and why."""

from __future__ import annotations

import numpy as np

from privbench.errors import BudgetError
from privbench.slicenet.problem import Gap, Slicing
from privbench.slicenet.slicers.costs import Costs, Kind
from privbench.slicenet.slicers.loads import check_owners
from privbench.slicenet.slicers.refine import Search

HELP = (
    "give devices more, use more of them (crowd.devices=...), a smaller regime.batch or "
    "regime.granularity"
)


def repair(search: Search, work: float) -> bool:
    """Finds a place for all that waits in the pool, by changes elsewhere if need be.

    Least excess first, then volume; then volume with a fine for excess, since received inputs are
    memory and less of them makes room; then least excess again.

    Returns:
        has everything a host now?
    """
    search.pool = search.fill(search.pool, sorted(search.pool, key=lambda k: -search.sizes[k]))
    search.keep()
    waiting = dict(search.pool)
    search.mark()
    if _strict(search, 0.1 * work):
        return True
    search.rewind()
    search.pool = waiting
    search.anneal(0.7 * work, 0.3, 0.05)
    return _strict(search, 0.2 * work)


def _strict(search: Search, work: float) -> bool:
    """Steps to less and less without a host, whatever it costs."""
    start = search.work
    search.measure()
    while search.pool and search.work - start < work:
        search.work += 1
        search.step(0.1 * search.unit)
    return not search.pool


def check_hope(costs: Costs) -> None:
    """Refuse at once what surely cannot be.

    Raises:
        BudgetError: stem and tail alone are too much for an owner; a block is too much for any
            device; all blocks together are too much for all devices. Names the constraint, the
            device that comes nearest and the gap.
    """
    check_owners(costs.problem)
    able = np.flatnonzero((costs.compute >= 0) & (costs.memory >= 0))
    if not len(able) and costs.kinds:
        raise BudgetError(
            "no device of this crowd hosts anything; expected some with hosts=true in its table"
        )
    for kind in costs.kinds:
        for constraint, least in (("compute", kind.flops), ("memory", _least(costs, kind))):
            gap = _gap(costs, able, constraint, least)
            if gap:
                layer = costs.problem.vertices[kind.vertices[0]].layer
                raise BudgetError(
                    f"no device can take block {kind.vertices[0]}, of layer '{layer}', even alone; "
                    f"the nearest: {gap}; {HELP}"
                )
    for constraint, left, total in (
        ("compute", costs.compute, sum(len(k.vertices) * k.flops for k in costs.kinds)),
        ("memory", costs.memory, sum(len(k.vertices) * k.memory for k in costs.kinds)),
    ):
        lacks = total - float(left[able].sum())
        if lacks > 0:
            gap = _gap(costs, able, constraint, float(left[able].max()) + lacks)
            raise BudgetError(
                f"all devices together cannot do it: when the others have used their {constraint} "
                f"to the end, {gap}; {HELP}"
            )


def _least(costs: Costs, kind: Kind) -> float:
    """Bytes that a device needs for one vertex whatever else it hosts.

    The inputs come off only where hosting their sources too would be cheaper than receiving them.
    """
    bytes_ = kind.memory + costs.bytes * float(costs.numbers[kind.needs].sum())
    needs = set(kind.needs.tolist())
    for source in sorted({each for flow in needs for each in costs.sources[flow]}):
        other = costs.kinds[source]
        shared = [
            count
            for made, count in zip(other.makes.tolist(), other.numbers.tolist(), strict=True)
            if made in needs
        ]
        if other is kind:
            bytes_ -= costs.bytes * sum(shared)
        saved = costs.bytes * sum(shared) - other.memory
        bytes_ -= len(other.vertices) * max(0.0, saved)
    return bytes_


def _gap(costs: Costs, able: np.ndarray, constraint: str, least: float) -> Gap | None:
    """What the device with most left lacks to spend so much on slices."""
    left = costs.compute if constraint == "compute" else costs.memory
    device = int(able[np.argmax(left[able])])
    budget = getattr(costs.problem.devices[device], constraint)
    if least <= left[device]:
        return None
    return Gap(device, constraint, budget - float(left[device]) + least, budget)


def refusal(search: Search) -> BudgetError:
    """What to say of a slicing that leaves something in the pool."""
    costs, account = search.costs, search.account
    kind = max(sorted(search.pool), key=lambda each: search.sizes[each])
    found: list[tuple[float, int, Gap]] = []
    for device in np.flatnonzero((costs.compute >= 0) & (costs.memory >= 0)).tolist():
        account.add(kind, device, 1)
        profile = costs.problem.devices[device]
        for constraint, left in (("compute", account.compute), ("memory", account.memory)):
            budget = getattr(profile, constraint)
            if left[device] < 0:
                gap = Gap(device, constraint, budget - float(left[device]), budget)
                found.append((gap.over, device, gap))
        account.drop(kind, device, 1)
    layer = costs.problem.vertices[costs.kinds[kind].vertices[0]].layer
    waiting = sum(search.pool.values())
    near = f"; the nearest: {min(found)[2]}" if found else ""
    return BudgetError(
        f"found no slicing within budgets: {waiting} of {len(costs.kind_of)} blocks have no host, "
        f"one of layer '{layer}' among them{near}; {HELP}"
    )


def fixed(search: Search, seed: Slicing) -> None:
    """Starts a search from a slicing: what is too much for its device goes to the pool."""
    for vertex, host in enumerate(seed.hosts):
        search.put(search.costs.kind_of[vertex], int(host), 1)
    search.relieve(range(search.costs.devices), search.pool)
    search.keep()
