"""The simplest feasible slicer: the largest vertex next, to the device that it burdens least."""

from __future__ import annotations

from dataclasses import dataclass

from privbench.slicenet.problem import Problem, Slicing
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.loads import Loads, check_owners


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
        check_owners(problem)
        loads = Loads(problem)
        hosts = [0] * len(problem.vertices)
        order = sorted(range(len(hosts)), key=lambda number: -problem.vertices[number].flops)
        for number in order:
            needs = loads.after(number)
            device = loads.least(needs)
            if device is None:
                raise loads.refusal(number, needs)
            hosts[number] = device
            loads.put(number, device)
        return Slicing(tuple(hosts))
