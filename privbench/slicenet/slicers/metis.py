"""METIS' edge cut: the paper's reference, and a baseline here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import numpy as np
from scipy.sparse import coo_array, csr_array

from privbench.errors import UsageError
from privbench.slicenet.problem import Flow, Problem, Slicing
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.loads import check_owners
from privbench.slicenet.slicers.simple import repaired

HEAVIEST = 2**28
"""Weights are scaled so that all together weigh at most this: METIS adds them in 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Metis(Slicer):
    """Least edge cut with FLOPs balanced by compute budgets; then the simplest repair.

    After Karypis, Kumar, "A Fast and High Quality Multilevel Scheme for Partitioning Irregular
    Graphs", 1998, https://doi.org/10.1137/S1064827595287997, the reference of Chen et al., SECON
    2018. A graph counts an activation once for each vertex that needs it, not once for each device,
    and knows nothing of memory; hence the repair, which looks at budgets alone.

    A flow of s blocks to t vertices has s t edges. Where all flows together have more than
    ``edges``, each block is linked to every k-th vertex only, by edges that weigh k times as much:
    the expected cut stays (ours).

    Raises:
        UsageError: pymetis is not installed, or a setting is out of range.
    """

    seed: int = 0  # of METIS' own draws
    edges: int = 4_000_000  # of the graph, about; 1 GB and a minute at ten times as many

    def __post_init__(self) -> None:
        if self.seed < 0 or self.edges < 1:
            raise UsageError(
                f"slicer.seed={self.seed}, slicer.edges={self.edges}; expected a seed of at least 0, "
                "and at least 1 edge"
            )

    def slice(self, problem: Problem) -> Slicing:
        """See ``Slicer.slice``."""
        pymetis = _pymetis()
        check_owners(problem)
        return repaired(problem, self.partition(problem, pymetis))

    def partition(self, problem: Problem, pymetis: ModuleType | None = None) -> Slicing:
        """What METIS returns: it may break budgets."""
        module = pymetis or _pymetis()
        devices, parts = _parts(problem)
        if not problem.vertices or len(devices) < 2:
            return Slicing((int(devices[0]),) * len(problem.vertices))
        graph = graph_of(problem, self.edges)
        # Compressed rows only: other forms of the graph are deprecated. One weight a vertex: this
        # interface reads a second one as that of the next vertex.
        found = module.part_graph(
            len(devices),
            module.CSRAdjacency(graph.indptr.tolist(), graph.indices.tolist()),
            vweights=_whole([vertex.flops for vertex in problem.vertices]).tolist(),
            eweights=graph.data.tolist(),
            tpwgts=parts.tolist(),
            options=module.Options(seed=self.seed),
        )
        return Slicing(tuple(devices[np.asarray(found.vertex_part)].tolist()))


def graph_of(problem: Problem, edges: int) -> csr_array:
    """The weight between each two vertices: numbers that one sends the other, as whole numbers.

    What owners make, and what goes to them, is no edge: owners are no vertices.

    Args:
        problem: whose flows are meant.
        edges: about how many there may be; more are thinned out.
    """
    wanted = sum(len(flow.sources) * len(flow.targets) for flow in problem.flows)
    step = max(1, -(-wanted // edges))
    parts = [_edges(flow, step) for flow in problem.flows if flow.sources and flow.targets]
    empty = np.zeros((3, 0))
    sources, targets, weights = np.concatenate([empty, *parts], axis=1)
    sources, targets = sources.astype(np.int64), targets.astype(np.int64)
    apart = sources != targets
    size = (len(problem.vertices),) * 2
    one_way = coo_array((weights[apart], (sources[apart], targets[apart])), shape=size)
    both = csr_array(one_way + one_way.T)
    both.sum_duplicates()
    both.data = _whole(both.data)
    return both


def _edges(flow: Flow, step: int) -> np.ndarray:
    """Rows source, target, weight: of every ``step``-th pair of a flow, shifted from block to block."""
    sources, targets = np.array(flow.sources), np.array(flow.targets)
    step = min(step, len(targets))
    each = -(-len(targets) // step)
    reached = (np.arange(each) * step + np.arange(len(sources))[:, None]) % len(targets)
    weights = np.repeat(np.array(flow.numbers, dtype=np.float64), each) * len(targets) / each
    return np.stack([np.repeat(sources, each), targets[reached.ravel()], weights])


def _parts(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Devices that host, and what share of the FLOPs each is to get.

    Shares follow the compute that the stem and the tail leave. Where devices are many, the strongest
    alone, one for three vertices: asked for more parts, METIS runs out of vertices and says so on
    standard output.
    """
    hosting = np.flatnonzero([device.hosts for device in problem.devices])
    left = np.array([problem.devices[d].compute - problem.flops(d, ()) for d in hosting.tolist()])
    hosting, left = hosting[left > 0], left[left > 0]
    count = len(problem.vertices)
    most = max(1, count // 3, min(count // 2, 8))
    kept = np.sort(np.argsort(-left, kind="stable")[:most])
    if not len(kept):
        return np.zeros(1, dtype=np.int64), np.ones(1)
    shares = left[kept] / left[kept].max()
    return hosting[kept], shares / shares.sum()


def _whole(weights: np.ndarray | list[float]) -> np.ndarray:
    """As whole numbers of at least 1, rounded where they would be too many to add."""
    values = np.asarray(weights, dtype=np.float64)
    scale = min(1.0, HEAVIEST / max(values.sum(), 1.0))
    return np.maximum(1, np.rint(values * scale)).astype(np.int32)


def _pymetis() -> ModuleType:
    try:
        return import_module("pymetis")
    except ImportError as cause:
        raise UsageError(
            "slicer=metis needs pymetis, which is not installed: pip install 'privbench[slicing]', or "
            "choose slicer=hypergraph or slicer=layerwise"
        ) from cause
