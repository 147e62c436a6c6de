"""Canaries: records of which a fair coin decided, one by one, whether the model was trained on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from privbench.contract import Samples, child_rng
from privbench.errors import DataError

CANARIES = ("natural", "mislabelled", "blank", "ood")
FEWEST = 10  # below that even an auditor who is always right shows next to nothing


@dataclass(frozen=True, eq=False)
class Planted:
    """Canaries and their coins.

    Args:
        records: all of them, in random order.
        inserted: the coin of each: True = it is among the private records.
    """

    records: Samples
    inserted: Bool[Tensor, " canaries"]


def plant(pool: Samples, count: int, kind: str, classes: int, rng: torch.Generator) -> Planted:
    """Make canaries of the first records of a pool, and flip a coin for each.

    Args:
        pool: records in random order that the model is not trained on.
        kind: ``natural``, as they are; ``mislabelled``, with a wrong label drawn at random; ``blank``,
            one value everywhere, another in each canary, and any label; ``ood``, the values of the
            record in random order, and any label.
        classes: number of labels.

    Raises:
        DataError: an unknown kind, or too few records.
    """
    if kind not in CANARIES:
        raise DataError(f"data.canary='{kind}' is unknown; expected {', '.join(CANARIES)}")
    if type(count) is not int or not FEWEST <= count <= len(pool) - 2:
        raise DataError(
            f"data.canaries={count}; expected {FEWEST} to {len(pool) - 2}: they are taken from the "
            f"{len(pool)} non-members, of which 2 must remain to measure accuracy on"
        )
    taken = pool[:count]
    labels = torch.zeros(count, dtype=torch.int64) if taken.y is None else taken.y
    drawn = child_rng(rng, "canary labels")
    if kind == "mislabelled":
        labels = (
            labels + torch.randint(1, classes, (count,), generator=drawn)
        ) % classes  # never 0: wrong
    elif kind != "natural":
        labels = torch.randint(classes, (count,), generator=drawn)
    made = Samples(_inputs(taken.x, kind, child_rng(rng, "canary inputs")), labels)
    coins = torch.rand(count, generator=child_rng(rng, "canary coins")) < 0.5
    return Planted(made, coins)


def with_canaries(
    members: Samples, planted: Planted, rng: torch.Generator
) -> tuple[Samples, Int64[Tensor, " canaries"]]:
    """Members and inserted canaries in random order, and the place of each canary there (-1 = left out)."""
    there = planted.records[planted.inserted]
    order = torch.randperm(len(members) + len(there), generator=child_rng(rng, "canary places"))
    x, y = torch.cat([members.x, there.x])[order], None
    if members.y is not None and there.y is not None:
        y = torch.cat([members.y, there.y])[order]
    places = torch.full((len(planted.records),), -1, dtype=torch.int64)
    places[planted.inserted] = order.argsort()[len(members) :]
    return Samples(x, y), places


def _inputs(x: Tensor, kind: str, rng: torch.Generator) -> Tensor:
    if kind == "blank":
        level = (torch.randperm(len(x), generator=rng).to(x.dtype) + 0.5) / len(x)
        return level.reshape(-1, *[1] * (x.ndim - 1)).expand_as(x).clone()
    if kind == "ood":
        flat = x.flatten(1)
        return flat.gather(1, torch.rand(flat.shape, generator=rng).argsort(dim=1)).reshape(x.shape)
    return x
