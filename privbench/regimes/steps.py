"""The steps of a crowd, one after another: batches, their owners, and the loss of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Recipe, Samples, augmented, batches, child_rng, counted
from privbench.data.population import Population
from privbench.regimes.curve import Curve
from privbench.slicenet.engine import Simulated
from privbench.slicenet.engines import Distributed, Job
from privbench.slicenet.faulty import Faulty
from privbench.slicenet.replicas import Replicated


def in_turn(
    engine: Simulated | Replicated,
    recipe: Recipe,
    population: Population,
    samples: Samples,
    shares: tuple[Int64[Tensor, " _share"], ...],
    steps: int,
    rng: torch.Generator,
    curve: Curve,
) -> int:
    """All steps in this process; how many records were visited."""
    owner_of = _owner_of(samples, shares)
    order, noise = batches(recipe, len(samples), child_rng(rng, "batches")), child_rng(rng, "noise")
    visits = 0
    for step in counted(range(steps)):
        positions = next(order)
        if isinstance(engine, Faulty):
            positions = positions[engine.present(step, owner_of[positions])]
        population.note(step, positions)
        records = samples[positions.to(samples.x.device)]
        batch = augmented(recipe, records, positions, noise, step)
        curve.add(engine.step(step, batch, owner_of[positions]))
        visits += len(positions)
    return visits


def batches_and_owners(
    recipe: Recipe,
    samples: Samples,
    shares: Sequence[Int64[Tensor, " _share"]],
    steps: int,
    rng: torch.Generator,
) -> tuple[list[Int64[Tensor, " _rows"]], Int64[Tensor, " records"]]:
    """The batches of all steps, and the number of each record's owner."""
    order = batches(recipe, len(samples), child_rng(rng, "batches"))
    return [next(order) for _ in range(steps)], _owner_of(samples, shares)


def _owner_of(
    samples: Samples, shares: Sequence[Int64[Tensor, " _share"]]
) -> Int64[Tensor, " records"]:
    """The number of each record's owner, among those that hold any."""
    owner_of = torch.zeros(len(samples), dtype=torch.int64)
    for number, share in enumerate(share for share in shares if len(share)):
        owner_of[share] = number
    return owner_of


def in_processes(engine: Distributed, job: Job, population: Population, curve: Curve) -> int:
    """All steps in processes of their own; how many records were visited."""
    for step, positions in enumerate(job.batches):
        population.note(step, positions)
    for loss in engine.train(job):
        curve.add(loss)
    return sum(map(len, job.batches))
