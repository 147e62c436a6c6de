"""A random slicing that keeps the budgets: what a partition costs that nobody thought about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privbench.errors import BudgetError, UsageError
from privbench.slicenet.problem import Problem, Slicing
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.loads import Loads, check_owners


@dataclass(frozen=True, kw_only=True)
class Random(Slicer):
    """Each vertex to a device drawn from those that can take it, all equally likely (ours).

    Vertices come in random order; where that ends with one that nobody can take, it is tried
    again, and in the second half of the tries in falling order of FLOPs.

    Raises:
        UsageError: no try.
    """

    seed: int = 0  # of the draws
    tries: int = 16  # orders until it gives up

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise UsageError(f"slicer.tries={self.tries}; expected at least 1")

    def slice(self, problem: Problem) -> Slicing:
        """See ``Slicer.slice``."""
        check_owners(problem)
        rng = np.random.default_rng(self.seed)
        flops = np.array([vertex.flops for vertex in problem.vertices])
        refusals: list[BudgetError] = []
        for attempt in range(self.tries):
            order = rng.permutation(len(flops))
            if 2 * attempt >= self.tries > 1:
                order = order[np.argsort(-flops[order], kind="stable")]
            drawn = _drawn(problem, order.tolist(), rng)
            if isinstance(drawn, Slicing):
                return drawn
            refusals.append(drawn)
        raise refusals[-1]


def _drawn(problem: Problem, order: list[int], rng: np.random.Generator) -> Slicing | BudgetError:
    loads, hosts = Loads(problem), [0] * len(problem.vertices)
    for number in order:
        needs = loads.after(number)
        able = np.flatnonzero(loads.fits(needs))
        if not len(able):
            return loads.refusal(number, needs)
        hosts[number] = int(rng.choice(able))
        loads.put(number, hosts[number])
    return Slicing(tuple(hosts))
