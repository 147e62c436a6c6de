"""The private records, split by seed, as a regime is handed them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Samples
from privbench.data.truth import Truth


@dataclass(frozen=True, eq=False)
class Population:
    """What a regime may know of the data: its private records, and held-out ones for accuracy.

    Args:
        train: the members, in a seeded random order; rows of batches are positions in it.
        held_out: the non-members (accuracy is measured on them).
        auxiliary: public records of the same distribution (None where the split has none).
        classes: number of labels.
        truth: told which samples were in which batch; a regime never reads it.
        told: the data say who is a member; else members were drawn by seed.
    """

    train: Samples
    held_out: Samples
    auxiliary: Samples | None
    classes: int
    truth: Truth
    told: bool = False

    def note(self, step: int, positions: Int64[Tensor, " rows"]) -> None:
        """Tell the truth that row i of ``step`` was ``train[positions[i]]``."""
        self.truth.note(step, positions)

    def share(self, owners: int, rng: torch.Generator) -> tuple[Int64[Tensor, " n"], ...]:
        """Deal the private records to owners in equal random shares, and tell the truth who owns what."""
        shares = torch.randperm(len(self.train), generator=rng).tensor_split(owners)
        self.truth.deal(shares)
        return tuple(shares)
