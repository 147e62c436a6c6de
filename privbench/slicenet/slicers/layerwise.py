"""Pipeline cuts: consecutive vertices to one device, then to the next."""

from __future__ import annotations

from dataclasses import dataclass

from privbench.slicenet.problem import Problem, Slicing
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.loads import Loads
from privbench.slicenet.slicers.simple import repaired


@dataclass(frozen=True, kw_only=True)
class Layerwise(Slicer):
    """Intervals of the forward order, given to devices in turn and filled to their budgets.

    As pipeline parallelism cuts a network: Huang et al., "GPipe: Efficient Training of Giant Neural
    Networks using Pipeline Parallelism", 2019, https://arxiv.org/abs/1811.06965; differs by cutting
    inside layers too, and by having two budgets a device. Where the last device is left with more
    than it can do, the simplest repair follows, and the pieces that it moves are no intervals.
    """

    def slice(self, problem: Problem) -> Slicing:
        """See ``Slicer.slice``."""
        return repaired(problem, intervals(problem))


def intervals(problem: Problem) -> Slicing:
    """Consecutive vertices to each device that hosts, in turn, while they keep its budgets.

    What is left after the last device stays with it: such a slicing breaks a budget.
    """
    devices = [number for number, device in enumerate(problem.devices) if device.hosts]
    loads, hosts, place = Loads(problem), [0] * len(problem.vertices), 0
    for number in range(len(hosts)):
        fits = loads.fits(loads.after(number))
        while place < len(devices) - 1 and not fits[devices[place]]:
            place += 1
        hosts[number] = devices[place] if devices else 0
        loads.put(number, hosts[number])
    return Slicing(tuple(hosts))
