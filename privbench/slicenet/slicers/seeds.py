"""Slicings to start from: cheap to make, not always within budgets, each good for some shape of network."""

from __future__ import annotations

import numpy as np

from privbench.slicenet.slicers.costs import Costs
from privbench.slicenet.slicers.draft import Draft, Pool


def whole(costs: Costs) -> Pool:
    """Everything, nowhere."""
    return {number: len(kind.vertices) for number, kind in enumerate(costs.kinds)}


def orders(costs: Costs) -> tuple[np.ndarray, ...]:
    """Devices that host: by either budget or the tighter, largest first or last; as they come."""
    able = np.flatnonzero((costs.compute >= 0) & (costs.memory >= 0))
    compute, memory = costs.compute[able], costs.memory[able]
    compute, memory = compute / max(compute.max(), 1e-300), memory / max(memory.max(), 1e-300)
    found = [able]
    for power in (np.minimum(compute, memory), compute, memory):
        down = able[np.argsort(-power, kind="stable")]
        found += [down, down[::-1]]
    return tuple(found)


def intervals(search: Draft, devices: np.ndarray, backward: bool = False) -> Pool:
    """Consecutive vertices to one device, then to the next; returns what is left over.

    Pipeline cuts as in Huang et al., "GPipe", 2019, https://arxiv.org/abs/1811.06965; differs by
    filling every device to its own budgets.
    """
    pool, place = whole(search.costs), 0
    for kind in sorted(pool, reverse=backward):
        while pool[kind] and place < len(devices):
            device = int(devices[place])
            fit = min(float(search.account.offers(kind).fit[device]), pool[kind])
            if fit >= 1:
                search.put(kind, device, int(fit))
                pool[kind] -= int(fit)
            if pool[kind]:
                place += 1
    return {kind: count for kind, count in pool.items() if count}
