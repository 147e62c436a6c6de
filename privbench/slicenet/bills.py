"""What a step costs a crowd, beside what other regimes would cost the same crowd."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from privbench.contract import Bill
from privbench.slicenet.compare import Work, centralized_bill, fedavg_bill, split_bill
from privbench.slicenet.graph import Graph, Stage, parameters_of
from privbench.slicenet.ledger import bill_of
from privbench.slicenet.problem import Problem, Slicing


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
    stages = graph.stages
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
