"""Simulated time and energy of one training step of a crowd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import ceil, inf

import numpy as np
from jaxtyping import Float64

from privbench.contract import Carried
from privbench.errors import UsageError
from privbench.slicenet.crowd import Device
from privbench.slicenet.problem import Problem, Slicing
from privbench.slicenet.queues import Queues
from privbench.slicenet.walk import Walk

COORDINATOR = Device(
    name="coordinator", compute=inf, memory=inf, speed=inf, up=inf, down=inf, latency=0
)
"""Never the bottleneck: its lines and arithmetic take no time (its owners' own lines do)."""


@dataclass(frozen=True, eq=False)
class Timing:
    """One step in simulated time.

    Args:
        seconds: from the first computation to the last weights received.
        rows: of each device in the step's batch.
        flops: computed, by device.
        busy: seconds spent computing, by device.
        sent: bytes, by device.
        received: bytes, by device.
        joules: for computing, sending and receiving, by device (none for waiting).
        kinds: bytes by kind of message, all devices together.
    """

    seconds: float
    rows: tuple[int, ...]
    flops: Float64[np.ndarray, " devices"]
    busy: Float64[np.ndarray, " devices"]
    sent: Float64[np.ndarray, " devices"]
    received: Float64[np.ndarray, " devices"]
    joules: Float64[np.ndarray, " devices"]
    kinds: tuple[Carried, ...]


def typical_rows(problem: Problem) -> tuple[int, ...]:
    """How many rows of a typical step each device owns: its share of the batch, rounded up or down.

    Row i goes to whoever owns quantile (i + 1/2) / B of the records (systematic sampling), so that
    at most B owners take part, as in a step that is drawn, and they lie all over the crowd.
    """
    bounds, reached = [0], Fraction(0)
    for share in problem.shares:
        reached += share
        bounds.append(max(0, ceil(reached * problem.batch - Fraction(1, 2))))
    return tuple(after - before for before, after in pairwise(bounds))


def timed(
    problem: Problem,
    slicing: Slicing,
    *,
    rows: Sequence[int] | None = None,
    tail_flops: float = 0.0,
    coordinator: Device = COORDINATOR,
) -> Timing:
    """The time that one step takes, when everybody begins as soon as possible (ours).

    Owners run the stem; blocks go forward along the flows, each to each device that needs it (labels
    to whoever computes the loss, where that is a host); owners run the tail; gradients go back along
    the same flows; stem and tail gradients go to the coordinator, and the new stem and tail to the
    owners of the next batch (as many as of this one).
    A device computes one thing at a time, a line carries one transfer at a time (``Queues``). Among
    what is ready, vertices go in forward order, and in reverse order on the way back: list
    scheduling (R. L. Graham: Bounds on Multiprocessing Timing Anomalies, 1969,
    https://doi.org/10.1137/0117039), which is no optimal schedule. Updating weights, adding up
    partial sums and gradients, and the loss take no time.

    Args:
        slicing: who hosts what; its budgets are not checked here.
        rows: of each device in the batch, summing to B; None = ``typical_rows``.
        tail_flops: the tail's part of ``problem.owner_flops``: computed when the last hidden
            activation is there.
        coordinator: its lines.

    Raises:
        UsageError: ``rows`` or ``tail_flops`` do not fit the problem.
        PluginError: flows go in a circle.
    """
    shares = typical_rows(problem) if rows is None else tuple(int(count) for count in rows)
    if len(shares) != len(problem.devices) or sum(shares) != problem.batch or min(shares) < 0:
        raise UsageError(
            f"rows: {len(shares)} numbers that sum to {sum(shares)}; expected one for each of "
            f"{len(problem.devices)} devices, {problem.batch} rows together"
        )
    if not 0 <= tail_flops <= problem.owner_flops:
        raise UsageError(
            f"tail_flops={tail_flops}; expected 0 to {problem.owner_flops}, stem and tail"
        )
    queues = Queues((*problem.devices, coordinator))
    Walk(problem, slicing, np.array(shares), tail_flops, queues).run()
    flops, busy = queues.flops[:-1], queues.busy[:-1]
    sent, received = queues.sent[:-1], queues.received[:-1]
    joules = np.array(
        [
            device.joules(flops[number], sent[number] + received[number])
            for number, device in enumerate(problem.devices)
        ]
    )
    kinds = tuple(Carried(kind, nbytes) for kind, nbytes in sorted(queues.kinds.items()))
    return Timing(queues.end, shares, flops, busy, sent, received, joules, kinds)
