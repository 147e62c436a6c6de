"""A slicing problem in arrays: kinds of vertices, what one of each costs, what devices have left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
from jaxtyping import Float64, Int64

from privbench.slicenet.problem import Problem

_FINE = 2**20  # shares with larger common denominators are rounded to parts of this


@dataclass(frozen=True, eq=False)
class Kind:
    """Vertices that nothing tells apart: same layer, costs and flows. Only their number matters.

    Args:
        vertices: their numbers.
        flops: of one, FLOP a step.
        memory: of one, bytes: parameters, gradients, optimiser state, its own outputs.
        needs: flows of which it is a target.
        makes: flows of which it is a source.
        numbers: what one makes of each of ``makes``, numbers a sample.
        loops: which of ``makes`` it needs itself too.
        to_owners: numbers a sample that one sends to owners.
    """

    vertices: tuple[int, ...]
    flops: float
    memory: float
    needs: Int64[np.ndarray, " needs"]
    makes: Int64[np.ndarray, " makes"]
    numbers: Float64[np.ndarray, " makes"]
    loops: np.ndarray
    to_owners: float


@dataclass(frozen=True, eq=False)
class Guard:
    """No device may see more than so many numbers of these flows (of one layer)."""

    layer: str
    flows: tuple[int, ...]
    cap: float


@dataclass(frozen=True, eq=False)
class Costs:
    """What a search over slicings looks at.

    Args:
        problem: whose it is.
        kinds: of vertices; each vertex is in one.
        kind_of: kind of each vertex.
        numbers: of each flow, numbers a sample.
        owned: flows that owners make.
        targets: kinds that need each flow.
        sources: kinds that make each flow.
        scale: the price of a number sent whole; prices are in numbers a sample times this.
        away: price of a number that goes to or comes from owners, by device: scale (1 - share).
        bytes: of a number of all rows of a step.
        compute: FLOP a step left for slices, by device; negative = may not host.
        memory: bytes left for slices, by device.
        guards: further caps.
        guard_of: guard of each flow, -1 = none.
    """

    problem: Problem
    kinds: tuple[Kind, ...]
    kind_of: tuple[int, ...]
    numbers: Float64[np.ndarray, " flows"]
    owned: np.ndarray
    targets: tuple[tuple[int, ...], ...]
    sources: tuple[tuple[int, ...], ...]
    scale: float
    away: Float64[np.ndarray, " devices"]
    bytes: float
    compute: Float64[np.ndarray, " devices"]
    memory: Float64[np.ndarray, " devices"]
    guards: tuple[Guard, ...] = ()
    guard_of: tuple[int, ...] = ()

    @property
    def devices(self) -> int:
        """How many there are."""
        return len(self.compute)


def costs_of(problem: Problem, guards: tuple[Guard, ...] = ()) -> Costs:
    """Groups vertices to kinds and turns budgets into what is left after stem and tail."""
    needs: list[list[int]] = [[] for _ in problem.vertices]
    makes: list[dict[int, int]] = [{} for _ in problem.vertices]
    exits = [0] * len(problem.vertices)
    for number, flow in enumerate(problem.flows):
        for vertex in flow.targets:
            needs[vertex].append(number)
        for vertex, count in zip(flow.sources, flow.numbers, strict=False):
            makes[vertex][number] = makes[vertex].get(number, 0) + count
            exits[vertex] += count * flow.to_owners
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, block in enumerate(problem.vertices):
        same = (block, tuple(needs[number]), tuple(makes[number].items()), exits[number])
        groups.setdefault(same, []).append(number)
    kinds = tuple(
        _kind(problem, group, needs[group[0]], makes[group[0]], exits[group[0]])
        for group in groups.values()
    )
    kind_of = [0] * len(problem.vertices)
    for number, kind in enumerate(kinds):
        for each in kind.vertices:
            kind_of[each] = number
    scale = lcm(*(share.denominator for share in problem.shares))
    scale = scale if scale <= _FINE else _FINE
    return Costs(
        problem,
        kinds,
        tuple(kind_of),
        np.array([sum(flow.numbers) for flow in problem.flows], dtype=np.float64),
        np.array([not flow.sources for flow in problem.flows], dtype=bool),
        *ends_of(kinds, len(problem.flows)),
        float(scale),
        np.array([float(round(scale * (1 - Fraction(share)))) for share in problem.shares]),
        float(problem.element * problem.at_once),
        *_left(problem),
        guards,
        _guarded(guards, len(problem.flows)),
    )


def _kind(
    problem: Problem, group: list[int], needs: list[int], makes: Mapping[int, int], exits: int
) -> Kind:
    vertex = problem.vertices[group[0]]
    held = vertex.parameters * (2 + problem.state) + problem.at_once * vertex.output
    return Kind(
        tuple(group),
        float(problem.batch * vertex.flops),
        float(problem.element * held),
        np.array(sorted(set(needs)), dtype=np.int64),
        np.array(list(makes), dtype=np.int64),
        np.array(list(makes.values()), dtype=np.float64),
        np.array([flow in needs for flow in makes], dtype=bool),
        float(exits),
    )


def ends_of(
    kinds: tuple[Kind, ...], flows: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Kinds that need each flow, and kinds that make it."""
    targets: list[list[int]] = [[] for _ in range(flows)]
    sources: list[list[int]] = [[] for _ in range(flows)]
    for number, kind in enumerate(kinds):
        for flow in kind.needs.tolist():
            targets[flow].append(number)
        for flow in kind.makes.tolist():
            sources[flow].append(number)
    return tuple(map(tuple, targets)), tuple(map(tuple, sources))


def _left(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Budgets less stem and tail, rounded down where only whole numbers are spent: sums stay exact."""
    compute, memory = [], []
    whole = all(float(vertex.flops).is_integer() for vertex in problem.vertices)
    for number, device in enumerate(problem.devices):
        rows, held = problem.own_rows[number], 0
        if rows:
            kept = problem.own_at_once(number) * problem.owner_output
            held = problem.owner_parameters * (2 + problem.state) + kept
        power = device.compute - rows * problem.owner_flops
        room = device.memory - problem.element * held
        compute.append(float(np.floor(power)) if whole else power * (1 - 1e-13))
        memory.append(float(np.floor(room)))
        if not device.hosts:
            compute[-1] = memory[-1] = -1.0
    return np.array(compute, dtype=np.float64), np.array(memory, dtype=np.float64)


def _guarded(guards: tuple[Guard, ...], flows: int) -> tuple[int, ...]:
    found = [-1] * flows
    for number, guard in enumerate(guards):
        for flow in guard.flows:
            found[flow] = number
    return tuple(found)
