"""Secure aggregation: what it cannot do, and which steps have too few owners for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Recipe, Samples
from privbench.errors import UsageError
from privbench.regimes.steps import batches_and_owners

KINDS = ("plain", "secure")


def check_sums(
    aggregation: str, least: int, *, distributed: bool, faults: bool, replicas: int
) -> None:
    """Refuse settings under which owners' gradients cannot be summed.

    Args:
        aggregation: ``regime.aggregation``.
        least: ``regime.min_owners``.
        distributed: are devices processes of their own?
        faults: may devices fail, or messages be lost?
        replicas: copies of the network.

    Raises:
        UsageError: a setting is out of range, or does not go with another.
    """
    if aggregation not in KINDS:
        raise UsageError(f"regime.aggregation='{aggregation}'; expected {' or '.join(KINDS)}")
    if type(least) is not int or least < 2:
        raise UsageError(
            f"regime.min_owners={least}; expected a whole number of at least 2 owners: a sum of one is "
            "that owner's gradient"
        )
    lacking = {
        "engine=distributed; choose engine=simulated": distributed,
        "faults; choose faults=none": faults,
        f"regime.replicas={replicas}; leave it out": replicas > 1,
    }
    for what, asked in lacking.items() if aggregation == "secure" else ():
        if asked:
            raise UsageError(
                f"regime.aggregation=secure does without {what}, or type regime.aggregation=plain"
            )


def check_owners(
    recipe: Recipe,
    samples: Samples,
    shares: Sequence[Int64[Tensor, " _share"]],
    steps: int,
    rng: torch.Generator,
    least: int,
) -> None:
    """Refuse training of which a step has too few owners; batches are drawn by seed, so it is known.

    Args:
        shares: positions of each device's records.
        rng: of the run, as training gets it; left as it is.
        least: owners that a step needs.

    Raises:
        UsageError: the first such step, its owners, and what to type.
    """
    batches, owner_of = batches_and_owners(recipe, samples, shares, steps, rng)
    owners = [len(owner_of[batch].unique()) for batch in batches]
    short = [step for step, count in enumerate(owners) if count < least]
    if not short:
        return
    step, fewest = short[0], min(owners)
    lower = f", or regime.min_owners={fewest}" if fewest > 1 else ""
    raise UsageError(
        f"regime.aggregation=secure: step {step} has rows of {owners[step]} owner"
        f"{'s' * (owners[step] > 1)} where regime.min_owners={least} are needed ({len(short)} of "
        f"{steps} steps have too few); type a larger regime.batch (it is {recipe.batch}), fewer "
        f"devices that hold records (crowd.devices){lower}"
    )
