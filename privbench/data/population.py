"""The private records, split by seed, as a regime is handed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Samples
from privbench.data.shares import dealt
from privbench.data.truth import Truth
from privbench.errors import PluginError


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

    @classmethod
    def of(cls, samples: Samples) -> Population:
        """Members alone, for a training that nobody is asked about afterwards."""
        classes = 0 if samples.y is None or not len(samples) else int(samples.y.max()) + 1
        return cls(samples, samples[:0], None, classes, Truth(samples))

    def note(self, step: int, positions: Int64[Tensor, " rows"]) -> None:
        """Tell the truth that row i of ``step`` was ``train[positions[i]]``."""
        self.truth.note(step, positions)

    def share(
        self,
        owners: int,
        rng: torch.Generator,
        holds: Sequence[bool] | None = None,
        alpha: float | None = None,
    ) -> tuple[Int64[Tensor, " _n"], ...]:
        """Deal the private records to owners, and tell the truth who owns what.

        The truth, as a topology, numbers only those that hold any.

        Args:
            owners: how many.
            rng: decides who gets what.
            holds: which of them hold records at all (None = all); the others get an empty share.
            alpha: None = equal random shares; else uneven by label, see ``dirichlet_shares``.

        Returns:
            positions in ``train``, by owner; together all of them, each once. A share may be empty:
            whoever cannot do with that refuses it (SliceNet's hosts can, clients of FedAvg cannot:
            they would have no update to send).

        Raises:
            UsageError: nobody holds records.
            DataError: uneven shares of records without labels.
        """
        held = [True] * owners if holds is None else list(holds)
        if len(held) != owners:
            raise PluginError(f"{owners} owners, and {len(held)} that hold records or not")
        shares = dealt(self.train.y, len(self.train), held, alpha, rng)
        self.truth.deal([share for share in shares if len(share)])
        return shares
