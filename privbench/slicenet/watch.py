"""What steps take, in simulated seconds, when devices are slow, away or not heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from privbench.contract import Party, Topology
from privbench.errors import UsageError
from privbench.slicenet.clock import timed
from privbench.slicenet.course import Course, course_of
from privbench.slicenet.faults import Faults
from privbench.slicenet.graph import Graph
from privbench.slicenet.problem import Problem, Slicing
from privbench.slicenet.waves import Missed


@dataclass(frozen=True, eq=False)
class Outage:
    """What fails, in which crowd.

    Args:
        faults: as asked for.
        course: what happens, step by step.
        problem, slicing: what each step costs whom, while all are there.
        tail_flops: the tail's part of ``problem.owner_flops``.
    """

    faults: Faults
    course: Course
    problem: Problem
    slicing: Slicing
    tail_flops: float = 0.0


def outage_of(faults: Faults, graph: Graph, problem: Problem, topology: Topology) -> Outage:
    """What fails in a crowd that a topology describes, one replica alone.

    Raises:
        UsageError: the schedule names a device or step that there is not.
    """
    number = {party: number for number, party in enumerate(problem.parties)}
    slicing = Slicing(tuple(number[piece.party] for piece in topology.slices))
    course = course_of(faults, problem, slicing, topology.steps)
    tail = 3.0 * sum(stage.flops for stage in graph.placed("tail"))
    return Outage(faults, course, problem, slicing, tail)


class Watch:
    """Simulated seconds of steps, where all owners are there and each has a typical part of the batch."""

    def __init__(self, outage: Outage) -> None:
        self._outage, problem = outage, outage.problem
        self._number = {party: number for number, party in enumerate(problem.parties)}
        self._found: dict[tuple[tuple[int, ...], frozenset[int]], float] = {}
        self._latency = max(device.latency for device in problem.devices)
        self._slowest = min(min(device.up, device.down) for device in problem.devices)
        self.undisturbed = self._timed(outage.slicing.hosts, frozenset())
        deadline = outage.faults.deadline
        if deadline and deadline < self.undisturbed:
            raise UsageError(
                f"faults.deadline={deadline}: a step takes {self.undisturbed:.4g} simulated seconds when "
                "nothing fails; expected more than that, or 0 to wait for every step"
            )

    def seconds(self, host_of: Mapping[Party, Party], slow: frozenset[int]) -> float:
        """Of a step.

        Args:
            host_of: who hosts the slices of each home.
            slow: devices that straggle.
        """
        parties = self._outage.problem.parties
        hosts = tuple(self._number[host_of[parties[home]]] for home in self._outage.slicing.hosts)
        return self._timed(hosts, slow)

    def again(self, found: Missed) -> float:
        """What repetitions take at most: all of a round at once, over the slowest line."""
        if not found.rounds:
            return 0.0
        return found.rounds * (self._latency + found.largest / self._slowest)

    def carried(self, sender: Party, receiver: Party, nbytes: int) -> float:
        """What slices take from one party to another; the releaser's lines are never the bottleneck."""
        devices = self._outage.problem.devices
        giver, taker = (self._number.get(party) for party in (sender, receiver))
        ends = [devices[number] for number in (giver, taker) if number is not None]
        rates = [] if giver is None else [devices[giver].up]
        rates += [] if taker is None else [devices[taker].down]
        return sum(device.latency for device in ends) / 2 + nbytes / min(rates, default=inf)

    def _timed(self, hosts: tuple[int, ...], slow: frozenset[int]) -> float:
        if (hosts, slow) not in self._found:
            faults, problem = self._outage.faults, self._outage.problem
            devices = tuple(
                faults.slowed(device) if number in slow else device
                for number, device in enumerate(problem.devices)
            )
            changed = replace(problem, devices=devices)
            tail = self._outage.tail_flops
            self._found[hosts, slow] = timed(changed, Slicing(hosts), tail_flops=tail).seconds
        return self._found[hosts, slow]
