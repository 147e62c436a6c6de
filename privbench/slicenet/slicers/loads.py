"""What every device spends while vertices come and go: running totals for slicers that look at budgets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from privbench.errors import BudgetError
from privbench.slicenet.problem import Gap, Needs, Problem


class Loads:
    """FLOP and bytes of each device under a partial slicing; equal to ``Problem.flops`` and ``.memory``.

    Giving a vertex to a device, or taking it away, changes the needs of that device alone: others
    receive the vertex's blocks whoever makes them.

    Args:
        problem: the devices and what is to be hosted.
        hosts: the device of each vertex, where all are hosted from the start.
    """

    def __init__(self, problem: Problem, hosts: Sequence[int] = ()) -> None:
        devices = len(problem.devices)
        self._problem = problem
        self._own_rows = np.asarray(problem.own_rows, dtype=np.int64)
        self._body = np.zeros(devices)
        self._rows = np.zeros(devices, dtype=np.int64)
        self._held = problem.owner_parameters * (self._own_rows > 0).astype(np.int64)
        self._compute = np.array([device.compute for device in problem.devices])
        self._memory = np.array([device.memory for device in problem.devices])
        self._hosting = np.array([device.hosts for device in problem.devices], dtype=bool)
        self._totals = [sum(flow.numbers) for flow in problem.flows]
        self._receiving = [_Tally() for _ in problem.flows]
        self._made = [_Tally() for _ in problem.flows]
        self._needs = _targets(problem)
        self._makes = _sources(problem)
        self.counts = np.zeros(devices, dtype=np.int64)
        for number, host in enumerate(hosts):
            self.put(number, host)

    def now(self) -> Needs:
        """What each device spends."""
        return self._spent(0.0, 0, self._rows)

    def after(self, vertex: int) -> Needs:
        """What each device would spend if it hosted this vertex too; the vertex is nobody's yet."""
        block = self._problem.vertices[vertex]
        rows = self._rows + block.output
        makes = dict(self._makes[vertex])
        extra = np.empty_like(rows)
        for flow in self._needs[vertex]:
            made, receiving = self._made[flow], self._receiving[flow]
            extra.fill(self._totals[flow] - makes.get(flow, 0))
            extra[made.devices] -= made.values
            extra[receiving.devices] = 0
            rows += extra
        for flow, numbers in self._makes[vertex]:
            rows[self._receiving[flow].devices] -= numbers
        return self._spent(block.flops, block.parameters, rows)

    def put(self, vertex: int, device: int) -> None:
        """Give a vertex to a device."""
        self._move(vertex, device, 1)

    def take(self, vertex: int, device: int) -> None:
        """Take a vertex from its device."""
        self._move(vertex, device, -1)

    def fits(self, needs: Needs) -> Bool[np.ndarray, " devices"]:
        """Which devices host, and would keep both budgets."""
        kept = (needs.flops <= self._compute) & (needs.memory <= self._memory)
        return kept & self._hosting

    def burden(self, needs: Needs) -> Float64[np.ndarray, " devices"]:
        """Share of its tightest budget that each device would use."""
        return np.maximum(
            np.divide(needs.flops, self._compute, out=_none(needs.flops), where=self._compute > 0),
            np.divide(needs.memory, self._memory, out=_none(needs.memory), where=self._memory > 0),
        )

    def least(self, needs: Needs) -> int | None:
        """The device that fits and is burdened least; among equals the one with the fewest vertices,
        then the lowest number. None if nobody fits."""
        burden = np.where(self.fits(needs), self.burden(needs), np.inf)
        equals = np.flatnonzero(burden == burden.min())
        if np.isinf(burden[equals[0]]):
            return None
        return int(equals[np.argmin(self.counts[equals])])

    def gap(self, device: int, needs: Needs | None = None) -> Gap | None:
        """The constraint that a device breaks most (by default now), None if it keeps both."""
        spent = needs or self.now()
        gaps = (
            Gap(device, "compute", float(spent.flops[device]), float(self._compute[device])),
            Gap(device, "memory", float(spent.memory[device]), float(self._memory[device])),
        )
        broken = [gap for gap in gaps if gap.needed > gap.budget]
        return max(broken, key=lambda gap: gap.over, default=None)

    def refusal(self, vertex: int, needs: Needs) -> BudgetError:
        """What to say when no device can take a vertex."""
        gaps = [self.gap(device, needs) for device in np.flatnonzero(self._hosting).tolist()]
        gap = min((found for found in gaps if found), key=lambda gap: gap.over, default=None)
        lacks = f"the nearest: {gap}" if gap else "no device of this crowd hosts (hosts=true)"
        return BudgetError(
            f"no device can take block {vertex} of {len(self._problem.vertices)}, of layer "
            f"'{self._problem.vertices[vertex].layer}'; {lacks}; give devices more, use more of them "
            "(crowd.devices=...), or a smaller regime.granularity or regime.batch"
        )

    def _spent(self, flops: float, parameters: int, rows: np.ndarray) -> Needs:
        problem = self._problem
        own = np.minimum(self._own_rows, problem.at_once)
        kept = problem.at_once * rows + own * problem.owner_output
        memory = problem.element * ((self._held + parameters) * (2 + problem.state) + kept)
        compute = problem.batch * (self._body + flops) + self._own_rows * problem.owner_flops
        return Needs(compute, memory.astype(np.float64))

    def _move(self, vertex: int, device: int, sign: int) -> None:
        block = self._problem.vertices[vertex]
        flows = {*self._needs[vertex], *(flow for flow, _ in self._makes[vertex])}
        before = sum(self._received(flow, device) for flow in flows)
        for flow in self._needs[vertex]:
            self._receiving[flow].add(device, sign)
        for flow, numbers in self._makes[vertex]:
            self._made[flow].add(device, sign * numbers)
        after = sum(self._received(flow, device) for flow in flows)
        self._body[device] += sign * block.flops
        self._held[device] += sign * block.parameters
        self._rows[device] += sign * block.output + after - before
        self.counts[device] += sign

    def _received(self, flow: int, device: int) -> int:
        if not self._receiving[flow].get(device):
            return 0
        return self._totals[flow] - self._made[flow].get(device)


class _Tally:
    """Numbers that are not zero, by device: few of many, as arrays."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._devices = np.zeros(4, dtype=np.int64)
        self._values = np.zeros(4, dtype=np.int64)

    @property
    def devices(self) -> np.ndarray:
        return self._devices[: len(self._places)]

    @property
    def values(self) -> np.ndarray:
        return self._values[: len(self._places)]

    def get(self, device: int) -> int:
        place = self._places.get(device)
        return 0 if place is None else int(self._values[place])

    def add(self, device: int, value: int) -> None:
        place = self._places.get(device)
        if place is None:
            place = self._places[device] = len(self._places)
            if place == len(self._devices):
                self._devices = np.concatenate([self._devices, np.zeros_like(self._devices)])
                self._values = np.concatenate([self._values, np.zeros_like(self._values)])
            self._devices[place], self._values[place] = device, 0
        self._values[place] += value
        if not self._values[place]:
            last = len(self._places) - 1
            self._devices[place], self._values[place] = self._devices[last], self._values[last]
            self._places[int(self._devices[place])] = place
            del self._places[device]


def _targets(problem: Problem) -> list[list[int]]:
    """Flows that each vertex needs."""
    found: list[list[int]] = [[] for _ in problem.vertices]
    for number, flow in enumerate(problem.flows):
        for vertex in sorted(set(flow.targets)):
            found[vertex].append(number)
    return found


def _sources(problem: Problem) -> list[list[tuple[int, int]]]:
    """Flows that each vertex adds to, and how many numbers a sample."""
    found: list[list[tuple[int, int]]] = [[] for _ in problem.vertices]
    for number, flow in enumerate(problem.flows):
        for vertex, numbers in zip(flow.sources, flow.numbers, strict=False):
            found[vertex].append((number, numbers))
    return found


def _none(like: np.ndarray) -> np.ndarray:
    return np.full_like(like, np.inf)


def check_owners(problem: Problem) -> None:
    """Refuse a crowd in which stem and tail alone are too much for an owner.

    Raises:
        BudgetError: names the device, the constraint and the gap.
    """
    loads = Loads(problem)
    spent = loads.now()
    found = [loads.gap(device, spent) for device in range(len(problem.devices))]
    gap = max((gap for gap in found if gap), key=lambda gap: gap.over, default=None)
    if gap:
        raise BudgetError(
            f"stem and tail alone are too much for an owner: {gap}; give devices more, fewer rows "
            "each by more of them (crowd.devices=...), or a smaller regime.batch"
        )
