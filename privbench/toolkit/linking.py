"""Which rows of two epochs are one sample: nothing in the protocol says so, but each crosses once in each."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

CLOSEST = 1e-9  # distance below which rows are equal but for rounding


def linked(
    guesses: Float[Tensor, "n ..."], epochs: Int64[Tensor, " n"], blind: Tensor, ratio: float
) -> Int64[Tensor, " n"]:
    """Which rows are one sample: for each, the place of the first row of its set.

    Epoch by epoch, rows are assigned to the sets so far (Hungarian method), each standing for the
    mean of its guesses. A sample crosses at most once an epoch.

    Args:
        epochs: of each row.
        blind: the guess of whoever saw nothing.
        ratio: a link must be this much nearer than the next row of its epoch, and than ``blind``.
    """
    flat = guesses.flatten(1).double()
    first: list[int] = []
    sums: list[Tensor] = []
    members: list[int] = []
    found = torch.arange(len(flat))
    for epoch in epochs.unique().tolist():
        here = (epochs == epoch).nonzero().flatten()
        free = dict(enumerate(here.tolist()))
        if first:
            centres = torch.stack(sums) / torch.tensor(members)[:, None]
            far = torch.cdist(centres, flat[here])
            limit = ratio * _nearest(flat[here], blind.flatten().double())
            for group, place in zip(*linear_sum_assignment(far.numpy()), strict=True):
                if far[group, place] < limit[place]:
                    row = free.pop(int(place))
                    found[row] = first[group]
                    sums[group] = sums[group] + flat[row]
                    members[group] += 1
        for row in free.values():
            first.append(row)
            sums.append(flat[row])
            members.append(1)
    return found


def odds(
    one: Float[Tensor, "n features"],
    other: Float[Tensor, "m features"],
    sharpness: float,
    rounds: int,
) -> Float[Tensor, "n m"]:
    """Logarithm of how likely each row of one epoch is each row of another: a soft assignment.

    A power of the distance, made to sum to one over either epoch in turn (R. Sinkhorn, P. Knopp:
    Concerning nonnegative matrices and doubly stochastic matrices, 1967,
    https://doi.org/10.2140/pjm.1967.21.343). Who is near to many is thereby likely for none.

    Args:
        sharpness: the power; large ones leave the nearest alone.
        rounds: of making sums equal one.
    """
    found = -sharpness * torch.cdist(one.double(), other.double()).clamp(min=CLOSEST).log()
    for _ in range(rounds):
        found = found - found.logsumexp(dim=1, keepdim=True)
        found = found - found.logsumexp(dim=0, keepdim=True)
    return found


def _nearest(rows: Float[Tensor, "n pixels"], blind: Float[Tensor, " pixels"]) -> Tensor:
    """How far the nearest other row, or the blind guess, is."""
    apart = torch.cdist(rows, rows)
    apart.fill_diagonal_(torch.inf)
    away = (rows - blind).norm(dim=1)
    return torch.minimum(apart.min(dim=1).values, away)
