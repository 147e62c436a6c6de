"""The slicer of choice: least volume within all budgets, by our own repair and refinement."""

from __future__ import annotations

from dataclasses import dataclass

from privbench.errors import BudgetError, UsageError
from privbench.slicenet.problem import Problem, Slicing
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.contest import best
from privbench.slicenet.slicers.costs import costs_of
from privbench.slicenet.slicers.kahypar import kahypar_seeds
from privbench.slicenet.slicers.layerwise import Layerwise
from privbench.slicenet.slicers.metis import Metis
from privbench.slicenet.slicers.repair import check_hope
from privbench.slicenet.slicers.seeds import orders

LARGE = 1_000_000  # blocks times devices; beyond, METIS takes longer than the search


@dataclass(frozen=True, kw_only=True)
class Hypergraph(Slicer):
    """Partitions a hypergraph under two absolute budgets a device.

    Blocks are vertices and what they send is a hyperedge, as in Catalyurek, Aykanat,
    "Hypergraph-Partitioning-Based Decomposition for Parallel Sparse-Matrix Vector Multiplication",
    1999, https://doi.org/10.1109/71.780863; several weights a vertex as in Karypis, Kumar,
    "Multilevel Algorithms for Multi-Constraint Graph Partitioning", 1998,
    https://doi.org/10.1109/SC.1998.10018; gains as in Fiduccia, Mattheyses, "A Linear-Time Heuristic
    for Improving Network Partitions", 1982, https://doi.org/10.1109/DAC.1982.1585498. Differs (ours):
    budgets are absolute and unequal, received inputs count as memory, blocks that nothing tells
    apart are moved together, and refinement ruins and recreates (``refine.Search``). Seeds are
    intervals, greedy fillings, what ``layerwise`` and ``metis`` slice (so that neither ever sends
    less) and, where it is installed, Mt-KaHyPar's partition; each is repaired and refined, and the
    best wins. METIS and Mt-KaHyPar are left out where blocks times devices exceed a million.

    Raises:
        UsageError: an effort that is not positive.
    """

    effort: float = 1.0  # work of the search: 1 = seconds for some hundred blocks
    seed: int = 0  # of random choices
    kahypar: bool = True  # one more seed from Mt-KaHyPar, where it is installed?

    def __post_init__(self) -> None:
        if not self.effort > 0:
            raise UsageError(f"slicer.effort={self.effort}; expected a number above 0")

    def slice(self, problem: Problem) -> Slicing:
        """See ``Slicer.slice``."""
        costs = costs_of(problem)
        check_hope(costs)
        seeds = baselines(problem)
        if self.kahypar:
            hosts = kahypar_seeds(costs, orders(costs)[1], self.seed + 1)
            seeds += [Slicing(tuple(each)) for each in hosts]
        return best(costs, seeds, self.effort, self.seed)


def baselines(problem: Problem) -> list[Slicing]:
    """What simpler slicers find: seeds that the result is then never worse than."""
    small = len(problem.vertices) * len(problem.devices) <= LARGE
    found = []
    for slicer in (Layerwise(), Metis()) if small else (Layerwise(),):
        try:
            found.append(slicer.slice(problem))
        except (BudgetError, UsageError):
            continue  # it finds none, or is not installed: one seed less
    return found
