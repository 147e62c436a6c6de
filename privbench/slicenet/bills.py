"""What a step costs a crowd, beside what other regimes would cost the same crowd."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from privbench.contract import Bill, Volume
from privbench.errors import BudgetError, UsageError
from privbench.slicenet.compare import Work, centralized_bill, fedavg_bill, split_bill
from privbench.slicenet.graph import Graph, Stage, parameters_of
from privbench.slicenet.ledger import bill_of
from privbench.slicenet.problem import Problem, Slicing, check_budgets, volume
from privbench.slicenet.slicers.base import Slicer


def bills_of(
    graph: Graph,
    problem: Problem,
    slicing: Slicing,
    records: Sequence[int],
    *,
    shape: Sequence[int],
    steps: int,
) -> tuple[Bill, ...]:
    """Bills of SliceNet, centralized training, federated averaging and split learning.

    Args:
        graph: the network.
        records: of each device.
        shape: of a sample.
        steps: of the whole training; centralized training spreads the upload of records over them.
    """
    stages = [stage for stage in graph.stages if stage.sort != "loss"]
    tail = 3 * sum(stage.flops for stage in graph.placed("tail"))
    body = sum(vertex.flops for vertex in problem.vertices)
    work = _work(problem, stages, body + problem.owner_flops)
    stem = _work(problem, graph.placed("stem"), problem.owner_flops - tail)
    cut = sum(s.output for s in graph.placed("stem") if s.layer.name in graph.travelling)
    sample = float(prod(shape) * problem.element + 8)  # a label is a 64-bit number
    return (
        bill_of(problem, slicing, tail_flops=tail),
        centralized_bill(
            work, problem.devices, records, sample=sample, batch=problem.batch, steps=steps
        ),
        fedavg_bill(work, problem.devices, records, batch=problem.batch),
        split_bill(work, stem, problem.devices, records, cut=cut, batch=problem.batch),
    )


def _work(problem: Problem, stages: Sequence[Stage], flops: float) -> Work:
    return Work(
        flops=flops,
        parameters=sum(tensor.numel() for tensor in parameters_of(stages).values()),
        outputs=sum(stage.output for stage in stages),
        element=problem.element,
        state=problem.state,
    )


def volumes_of(
    problem: Problem, slicer: Slicer, chosen: Slicing, others: Sequence[Slicer]
) -> tuple[Volume, ...]:
    """What a slicer and others make of the same problem, all held to the same budgets.

    Args:
        slicer: that of ``chosen``.
        others: asked for their own slicing; one that finds none, or that misses a package, says so.
    """
    found = [_volume(problem, _name(slicer), chosen, True)]
    for other in others:
        try:
            slicing = other.slice(problem)
            check_budgets(problem, slicing)
        except (BudgetError, UsageError) as cause:
            found.append(Volume(_name(other), None, reason=str(cause)))
        else:
            found.append(_volume(problem, _name(other), slicing, False))
    return tuple(found)


def _volume(problem: Problem, name: str, slicing: Slicing, chosen: bool) -> Volume:
    nbytes = float(volume(problem, slicing))
    return Volume(name, nbytes, devices=len(set(slicing.hosts)), chosen=chosen)


def _name(slicer: Slicer) -> str:
    """The technique: the file that holds it."""
    return type(slicer).__module__.rpartition(".")[2]
