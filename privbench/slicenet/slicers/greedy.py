"""The simplest feasible slicer: the largest vertex next, to the device that it burdens least."""

from __future__ import annotations

from dataclasses import dataclass

from privbench.errors import BudgetError
from privbench.slicenet.problem import Gap, Problem, Slicing, gap_of
from privbench.slicenet.slicers.base import Slicer


@dataclass(frozen=True, kw_only=True)
class Greedy(Slicer):
    """Spreads the load: looks at budgets alone, not at communication.

    Each vertex, in falling order of FLOPs, goes to the device whose tightest budget is then used
    least (as a share); among equals to the one with the fewest vertices, then the lowest number.
    After Graham, "Bounds on Multiprocessing Timing Anomalies", 1969, https://doi.org/10.1137/0117039;
    differs by having two budgets a device and refusing what exceeds them.
    """

    def slice(self, problem: Problem) -> Slicing:
        """See ``Slicer.slice``."""
        hosted: list[list[int]] = [[] for _ in problem.devices]
        hosts = [0] * len(problem.vertices)
        order = sorted(range(len(hosts)), key=lambda number: -problem.vertices[number].flops)
        for number in order:
            hosts[number] = device = self._best(problem, hosted, number)
            hosted[device].append(number)
        return Slicing(tuple(hosts))

    def _best(self, problem: Problem, hosted: list[list[int]], number: int) -> int:
        loads: list[tuple[float, int, int]] = []
        gaps: list[Gap] = []
        for device, mine in enumerate(hosted):
            if not problem.devices[device].hosts:
                continue
            after = [*mine, number]
            gap = gap_of(problem, device, after)
            if gap is not None:
                gaps.append(gap)
            else:
                loads.append((_load(problem, device, after), len(mine), device))
        if not loads:
            vertex = problem.vertices[number]
            gap = min(gaps, key=lambda found: found.over)
            raise BudgetError(
                f"no device can take block {number} of {len(problem.vertices)}, of layer "
                f"'{vertex.layer}'; the nearest: {gap}; give devices more, use more of them "
                "(crowd.devices=...), or a smaller regime.granularity or regime.batch"
            )
        return min(loads)[2]


def _load(problem: Problem, device: int, vertices: list[int]) -> float:
    """Share used of the tightest budget."""
    profile = problem.devices[device]
    return max(
        problem.flops(device, vertices) / profile.compute,
        problem.memory(device, vertices) / profile.memory,
    )
