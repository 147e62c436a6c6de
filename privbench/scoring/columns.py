"""Records that are no images: column by column, against guessing what is usual in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

RARE = 0.01  # of records: a column that differs in fewer says nothing


@dataclass(frozen=True, eq=False)
class Columns:
    """What is usual in each column.

    Args:
        usual: its mean, or the commoner value where there are two.
        two: does it hold two values at most? Then a guess is right or wrong, whichever is nearer.
        other: the other of two values.
        error: what guessing the usual costs on average: squared error, or share that is wrong.
        telling: columns in which it costs anything.
    """

    usual: Float[Tensor, " columns"]
    two: Bool[Tensor, " columns"]
    other: Float[Tensor, " columns"]
    error: Float[Tensor, " columns"]
    telling: Bool[Tensor, " columns"]

    @classmethod
    def of(cls, records: Float[Tensor, "n ..."]) -> Columns:
        """From records of the same distribution that are not to be rebuilt."""
        x = records.flatten(1).double()
        low, high = x.min(dim=0).values, x.max(dim=0).values
        two = ((x == low) | (x == high)).all(dim=0)
        often = (x == high).double().mean(dim=0)
        usual = torch.where(two, torch.where(often > 0.5, high, low), x.mean(dim=0))
        wrong = torch.minimum(often, 1 - often)
        error = torch.where(two, wrong, x.var(dim=0, correction=0))
        telling = torch.where(two, wrong >= RARE, error > 1e-12)
        return cls(usual, two, low + high - usual, error, telling)

    def gain(self, x: Float[Tensor, "n ..."], true: Float[Tensor, "n ..."]) -> np.ndarray:
        """Of each record the mean over columns of ``1 - error / error of the usual``.

        1 is exact, 0 what guessing the usual gives, less is worse than that.
        """
        x, true = x.flatten(1).double(), true.flatten(1).double()
        closer = torch.where(
            (x - self.usual).abs() <= (x - self.other).abs(), self.usual, self.other
        )
        wrong = ((closer - true).abs() > 1e-6).double()
        errors = torch.where(self.two, wrong, (x - true).square())
        if not bool(self.telling.any()):
            return np.zeros(len(x))
        shares = errors[:, self.telling] / self.error[self.telling]
        return (1 - shares.mean(dim=1)).numpy()
