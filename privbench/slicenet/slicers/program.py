"""The slicing problem as a mixed-integer linear program, and slicings from its solutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint
from scipy.sparse import coo_array

from privbench.slicenet.problem import Problem, Slicing


@dataclass(frozen=True, eq=False)
class Program:
    """Minimise ``costs @ x`` with ``low <= rows @ x <= high``, some x whole numbers.

    Columns: how many vertices of each kind each device hosts, whether each flow reaches each device,
    and how many of each kind's blocks of a flow a device that it reaches made itself.

    Args:
        kinds: vertices that nothing tells apart, so that only their number matters.
        devices: those that host.
        costs: in units of ``unit``.
        unit: bytes a sample.
        bounds: of x.
        whole: 1 where x is a whole number.
        constraint: the rows.
        budgets: which rows are budgets.
    """

    kinds: tuple[tuple[int, ...], ...]
    devices: tuple[int, ...]
    costs: np.ndarray
    unit: float
    bounds: Bounds
    whole: np.ndarray
    constraint: LinearConstraint
    budgets: np.ndarray

    def slicing(self, values: np.ndarray) -> Slicing:
        """Who hosts what, by the numbers of each kind on each device."""
        hosts = [0] * sum(map(len, self.kinds))
        counts = np.rint(values).astype(int)
        for place, kind in enumerate(self.kinds):
            here = counts[place * len(self.devices) : (place + 1) * len(self.devices)]
            for number, host in zip(kind, np.repeat(self.devices, here).tolist(), strict=True):
                hosts[number] = host
        return Slicing(tuple(hosts))


def program_of(problem: Problem) -> Program:
    """The whole problem: volume, both budgets, and an order among devices that are alike."""
    return _Builder(problem).program()


def kinds_of(problem: Problem) -> tuple[tuple[int, ...], ...]:
    """Vertices with equal costs that are sources and targets of the same flows, with equal numbers."""
    places: list[list[tuple[int, int]]] = [[] for _ in problem.vertices]
    for number, flow in enumerate(problem.flows):
        for vertex in sorted(set(flow.targets)):
            places[vertex].append((number, -1))
        for vertex, count in zip(flow.sources, flow.numbers, strict=False):
            places[vertex].append((number, count))
    kinds: dict[tuple[object, ...], list[int]] = {}
    for number, block in enumerate(problem.vertices):
        key = (block.flops, block.parameters, block.output, *places[number])
        kinds.setdefault(key, []).append(number)
    return tuple(map(tuple, kinds.values()))


class _Builder:
    """Columns and rows as they are added. Column ``kind * devices + place`` is how many vertices of a
    kind the device at that place hosts."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.kinds = kinds_of(problem)
        self.devices = tuple(n for n, device in enumerate(problem.devices) if device.hosts)
        self.columns: list[_Column] = []
        self.rows: list[_Row] = []
        self.members = [len(kind) for kind in self.kinds]
        blocks = [problem.vertices[kind[0]] for kind in self.kinds]
        held = 2 + problem.state
        self.flops = [float(problem.batch * block.flops) for block in blocks]
        self.memory = [
            float(problem.element * (held * block.parameters + problem.at_once * block.output))
            for block in blocks
        ]
        limits = [(number, problem.devices[number]) for number in self.devices]
        self.compute_left = [of.compute - problem.flops(number, ()) for number, of in limits]
        self.memory_left = [of.memory - problem.memory(number, ()) for number, of in limits]

    def program(self) -> Program:
        """All of it."""
        kinds, places = range(len(self.kinds)), range(len(self.devices))
        for kind in kinds:
            for place in places:
                self.columns.append(_Column(self._most(kind, place)))
            mine = [(kind * len(places) + place, 1.0) for place in places]
            self.rows.append(_Row(mine, self.members[kind], self.members[kind]))
        bytes_of = [
            [(self._at(kind, place), self.memory[kind]) for kind in kinds] for place in places
        ]
        for number in range(len(self.problem.flows)):
            self._flow(number, bytes_of)
        for place in places:
            load = [(self._at(kind, place), self.flops[kind]) for kind in kinds]
            self.rows.append(_at_most(load, self.compute_left[place], budget=True))
            self.rows.append(_at_most(bytes_of[place], self.memory_left[place], budget=True))
        for one, two in self._alike():
            order = [(self._at(kind, one), float(len(kinds) - kind)) for kind in kinds]
            order += [(self._at(kind, two), float(kind - len(kinds))) for kind in kinds]
            self.rows.append(_Row(order, 0.0, np.inf))
        return self._built()

    def _at(self, kind: int, place: int) -> int:
        return kind * len(self.devices) + place

    def _most(self, kind: int, place: int) -> float:
        """Vertices of a kind that fit on a device at most."""
        most = float(self.members[kind])
        for cost, left in (
            (self.flops[kind], self.compute_left[place]),
            (self.memory[kind], self.memory_left[place]),
        ):
            if cost > 0:
                most = min(most, float(np.floor(left / cost + 1e-9)))
        return max(most, 0.0)

    def _flow(self, number: int, bytes_of: list[list[tuple[int, float]]]) -> None:
        """Whether it reaches each device, and which of its blocks are made there."""
        problem, flow = self.problem, self.problem.flows[number]
        sent = dict(zip(flow.sources, flow.numbers, strict=False))
        targets = set(flow.targets)
        needing = [kind for kind, vertices in enumerate(self.kinds) if vertices[0] in targets]
        making = [(k, sent[kind[0]]) for k, kind in enumerate(self.kinds) if kind[0] in sent]
        total, kept = sum(flow.numbers), float(problem.element * problem.at_once)
        reached = []
        for place, device in enumerate(self.devices):
            others = float(1 - problem.shares[device])
            if flow.to_owners:
                for kind, count in making:
                    self.columns[self._at(kind, place)].cost += count * others
            if not needing:
                continue
            reach = self._reach(needing, place, total * (1.0 if flow.sources else others))
            reached.append((reach, 1.0))
            bytes_of[place].append((reach, kept * total))
            for kind, count in making:
                own = self._own(kind, place, reach, count)
                bytes_of[place].append((own, -kept * count))
        if needing:
            self.rows.append(_Row(reached, self._fewest(needing), np.inf))

    def _reach(self, needing: list[int], place: int, cost: float) -> int:
        """A column: does a flow reach a device? It does if the device hosts what needs it."""
        self.columns.append(_Column(1.0, cost))
        reach = len(self.columns) - 1
        for kind in needing:
            hosted = self._at(kind, place)
            self.rows.append(
                _Row([(hosted, 1.0), (reach, -self.columns[hosted].top)], -np.inf, 0.0)
            )
        for costs, left in ((self.flops, self.compute_left), (self.memory, self.memory_left)):
            if left[place] > 0:
                load = [(self._at(kind, place), costs[kind]) for kind in needing]
                self.rows.append(_at_most([*load, (reach, -left[place])], 0.0))
        return reach

    def _own(self, kind: int, place: int, reach: int, count: int) -> int:
        """A column: blocks of a flow made where it is needed, so that they need not be sent there."""
        hosted = self._at(kind, place)
        top = self.columns[hosted].top
        self.columns.append(_Column(top, -float(count), whole=False))
        own = len(self.columns) - 1
        self.rows.append(_Row([(own, 1.0), (hosted, -1.0)], -np.inf, 0.0))
        self.rows.append(_Row([(own, 1.0), (reach, -top)], -np.inf, 0.0))
        return own

    def _fewest(self, kinds: list[int]) -> float:
        """Devices that it takes at least to host all vertices of these kinds."""
        fewest = 1
        for costs, left in ((self.flops, self.compute_left), (self.memory, self.memory_left)):
            need = sum(costs[kind] * self.members[kind] for kind in kinds)
            ends = np.cumsum(sorted(left, reverse=True))
            enough = np.flatnonzero(ends >= need * (1 - 1e-9))
            fewest = max(fewest, int(enough[0]) + 1 if len(enough) else len(left))
        return float(fewest)

    def _alike(self) -> list[tuple[int, int]]:
        """Neighbours among devices that nothing tells apart."""
        found, last = [], dict[tuple[object, ...], int]()
        for place, device in enumerate(self.devices):
            profile, problem = self.problem.devices[device], self.problem
            key = (
                profile.compute,
                profile.memory,
                problem.own_rows[device],
                problem.shares[device],
            )
            if key in last:
                found.append((last[key], place))
            last[key] = place
        return found

    def _built(self) -> Program:
        unit = max((abs(column.cost) for column in self.columns), default=0.0) or 1.0
        entries = [
            (row, column, value)
            for row, each in enumerate(self.rows)
            for column, value in each.entries
        ]
        rows, columns, values = (np.array(part) for part in zip(*entries, strict=True))
        shape = (len(self.rows), len(self.columns))
        return Program(
            kinds=self.kinds,
            devices=self.devices,
            costs=np.array([column.cost for column in self.columns]) / unit,
            unit=2 * self.problem.element * unit,
            bounds=Bounds(0.0, np.array([column.top for column in self.columns])),
            whole=np.array([int(column.whole) for column in self.columns]),
            constraint=LinearConstraint(
                coo_array((values, (rows, columns)), shape=shape).tocsr(),
                np.array([row.low for row in self.rows]),
                np.array([row.high for row in self.rows]),
            ),
            budgets=np.array([row.budget for row in self.rows]),
        )


@dataclass
class _Column:
    top: float
    cost: float = 0.0
    whole: bool = True


@dataclass(frozen=True)
class _Row:
    entries: list[tuple[int, float]]
    low: float
    high: float
    budget: bool = False


def _at_most(entries: list[tuple[int, float]], high: float, budget: bool = False) -> _Row:
    """A row of which the largest number is 1, so that the solver's tolerance is a share of it."""
    scale = max(abs(high), *(abs(value) for _, value in entries), 1e-30)
    return _Row(
        [(column, value / scale) for column, value in entries], -np.inf, high / scale, budget
    )
