"""The proven optimum of small problems, by mixed-integer programming: a yardstick for the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import LinearConstraint, milp

from privbench.errors import BudgetError, UsageError
from privbench.slicenet.problem import Problem, Slicing, gaps_of, volume
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.layerwise import intervals
from privbench.slicenet.slicers.loads import check_owners
from privbench.slicenet.slicers.program import Program, program_of

PROVEN = 1e-6
"""Volume over bound, less one, up to which floating point lets a slicing pass for the optimum."""


@dataclass(frozen=True)
class Exact:
    """The best slicing found, and what is known of it.

    Args:
        slicing: keeps all budgets.
        volume: of it, bytes a sample.
        bound: no slicing that keeps them has less, bytes a sample.
        proven: is this the least volume?
    """

    slicing: Slicing
    volume: float
    bound: float
    proven: bool


@dataclass(frozen=True, kw_only=True)
class MixedInteger(Slicer):
    """The least volume under both budgets, for some tens of vertices and a few devices.

    A mixed-integer linear program solved by HiGHS: Huangfu, Hall, "Parallelizing the dual revised
    simplex method", 2018, https://doi.org/10.1007/s12532-017-0130-5, through scipy. The program is
    ours: ``program.py`` states it. Until the time is over the answer is the same everywhere; a
    search that time cut short depends on the machine.

    Raises:
        UsageError: no time.
    """

    time_limit: float = 60.0  # s; then the best found so far is the answer

    def __post_init__(self) -> None:
        if not self.time_limit > 0:
            raise UsageError(f"slicer.time_limit={self.time_limit}; expected seconds, more than 0")

    def slice(self, problem: Problem) -> Slicing:
        """See ``Slicer.slice``."""
        return solve(problem, self.time_limit).slicing


def solve(problem: Problem, time_limit: float) -> Exact:
    """The best slicing that can be found in some time, and whether it is the optimum.

    Args:
        problem: at most some tens of vertices, or nobody knows how long it takes.
        time_limit: s.

    Raises:
        BudgetError: there is none, or none was found in time.
    """
    check_owners(problem)
    if not problem.vertices:
        return Exact(Slicing(()), 0.0, 0.0, True)
    program = program_of(problem)
    found = _solved(program, time_limit)
    bound = found.bound
    if found.values is not None and gaps_of(problem, program.slicing(found.values)):
        # The solver lets rows be off by a millionth: the bound stands, the slicing is sought anew.
        found = _solved(program, time_limit, less=1e-5)
    if found.values is None:
        raise _refusal(problem, program, found, time_limit)
    slicing = program.slicing(found.values)
    best = float(volume(problem, slicing))
    return Exact(slicing, best, min(best, bound), best - bound <= PROVEN * max(best, program.unit))


@dataclass(frozen=True, eq=False)
class _Solution:
    values: np.ndarray | None
    bound: float  # bytes a sample
    impossible: bool


def _solved(
    program: Program, seconds: float, *, less: float = 0.0, memory: bool = True
) -> _Solution:
    """Solve with budgets that are less by a share, or without those of memory."""
    rows = program.constraint
    high = np.array(rows.ub, dtype=np.float64)
    places = np.flatnonzero(program.budgets)
    high[places] -= less * np.abs(high[places])
    if not memory:
        high[places[1::2]] = np.inf
    found = milp(
        program.costs,
        integrality=program.whole,
        bounds=program.bounds,
        constraints=LinearConstraint(rows.A, rows.lb, high),
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    bound = getattr(found, "mip_dual_bound", None)
    return _Solution(
        values=found.x,
        bound=max(0.0, program.unit * bound) if bound is not None else 0.0,
        impossible=found.status == 2,
    )


def _refusal(problem: Problem, program: Program, found: _Solution, seconds: float) -> BudgetError:
    """Which budgets are in the way: those of compute, if memory without limit would not help."""
    if not found.impossible:
        return BudgetError(
            f"no slicing was found in {seconds:g} s, and none was proven impossible; give it more "
            "time (slicer.time_limit=...), give devices more, or choose slicer=hypergraph"
        )
    without = _solved(program, seconds, memory=False)
    constraint = "compute" if without.impossible else "memory"
    return BudgetError(
        f"no slicing keeps the budgets, and {constraint} binds (proven): {_nearest(problem, constraint)}; "
        "give devices more, use more of them (crowd.devices=...), or a smaller regime.batch"
    )


def _nearest(problem: Problem, constraint: str) -> str:
    """Where the intervals of ``layerwise`` break that constraint most."""
    gaps = [gap for gap in gaps_of(problem, intervals(problem)) if gap.constraint == constraint]
    return f"cut in intervals, {gaps[0]}" if gaps else "no device can be named alone"
