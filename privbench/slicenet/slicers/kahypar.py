"""Partitions by Mt-KaHyPar, where it is installed: seeds for our own refinement."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from privbench.slicenet.problem import Problem
from privbench.slicenet.slicers.costs import Costs

_PINS = 3_000_000  # larger hypergraphs take it minutes,
_PLACES = 1_000_000  # and so do more vertices times parts
_WEIGHT = 10**7  # all vertices together: it takes whole numbers


@cache
def library() -> Any:
    """The module and its started library, or None where there is no wheel for this platform.

    Started once a process, on one thread: it complains of a second start.
    """
    try:
        mtkahypar = import_module("mtkahypar")
    except ImportError:
        logging.getLogger(__name__).warning(
            "mtkahypar is not installed; slicing starts from its own seeds alone "
            "(pip install mtkahypar for one more)"
        )
        return None
    return mtkahypar, mtkahypar.initialize(1)


def partition(
    problem: Problem, weights: Sequence[float], capacities: Sequence[float], seed: int = 1
) -> list[int] | None:
    """A part for each vertex, least connectivity, about within the capacities.

    Gottesbueren, Heuer, Maas, Sanders, Schlag, "Scalable High-Quality Hypergraph Partitioning",
    2024, https://doi.org/10.1145/3626527, in its deterministic preset (the others change from run to
    run). It takes one weight a vertex, so that a second budget is not looked at.

    Args:
        problem: vertices and flows.
        weights: of vertices.
        capacities: of parts, in the unit of the weights.
        seed: of its choices.

    Returns:
        part of each vertex; None if the library is missing, the hypergraph is too large for it, or
        it finds no partition.
    """
    started = library()
    edges, prices = _edges(problem)
    if started is None or len(capacities) < 2 or not edges:
        return None
    if sum(map(len, edges)) > _PINS or len(weights) * len(capacities) > _PLACES:
        return None
    mtkahypar, library_ = started
    unit = _WEIGHT / max(sum(weights), 1e-300)
    mtkahypar.set_seed(seed)
    context = library_.context_from_preset(mtkahypar.PresetType.DETERMINISTIC)
    context.logging = False
    context.set_partitioning_parameters(len(capacities), 0.03, mtkahypar.Objective.KM1)
    try:
        graph = library_.create_hypergraph(
            context,
            len(weights),
            len(edges),
            edges,
            [max(1, round(weight * unit)) for weight in weights],
            prices,
        )
        context.set_individual_target_block_weights(
            [max(1, int(min(capacity * unit, _WEIGHT))) for capacity in capacities]
        )
        parts = graph.partition(context)
    except RuntimeError:  # it refuses weights that do not fit
        return None
    return [parts.block_id(vertex) for vertex in range(len(weights))]


def kahypar_seeds(costs: Costs, devices: np.ndarray, seed: int) -> list[list[int]]:
    """Hosts by partitions that look at compute, at memory, or at the tighter of both."""
    problem = costs.problem
    compute = np.array([costs.kinds[kind].flops for kind in costs.kind_of])
    memory = np.array([costs.kinds[kind].memory for kind in costs.kind_of])
    power, room = costs.compute[devices], costs.memory[devices]
    loads = (compute.sum() / max(power.sum(), 1e-300), memory.sum() / max(room.sum(), 1e-300))
    if loads[0] >= loads[1]:
        weights, capacities = compute, power
    else:
        weights, capacities = memory, room
    parts = partition(problem, weights.tolist(), capacities.tolist(), seed)
    return [] if parts is None else [[int(devices[part]) for part in parts]]


def _edges(problem: Problem) -> tuple[list[list[int]], list[int]]:
    edges, prices = [], []
    for flow in problem.flows:
        made = zip(flow.sources, flow.numbers, strict=False)
        ends = [({source}, count) for source, count in made] or [(set(), sum(flow.numbers))]
        for source, count in ends:
            pins = sorted(source | set(flow.targets))
            if len(pins) > 1 and flow.targets and count:
                edges.append(pins)
                prices.append(count)
    return edges, prices
