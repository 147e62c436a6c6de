"""Who owns which records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import child_rng
from privbench.errors import DataError, UsageError

Share = Int64[Tensor, " _share"]


def equal_shares(records: int, owners: int, rng: torch.Generator) -> tuple[Share, ...]:
    """Equal random shares (IID), give or take one record; some are empty where records are few."""
    return tuple(torch.randperm(records, generator=rng).tensor_split(owners))


def dirichlet_shares(
    labels: Int64[Tensor, " n"], owners: int, alpha: float, rng: torch.Generator
) -> tuple[Share, ...]:
    """Shares that are uneven by label, and of uneven sizes; some may be empty.

    M. Yurochkin, M. Agarwal, S. Ghosh, K. Greenewald, T. N. Hoang, Y. Khazaeni: Bayesian Nonparametric
    Federated Learning of Neural Networks, 2019, https://arxiv.org/abs/1905.12022: for each label,
    what part of its records goes to which owner is drawn from a symmetric Dirichlet(alpha). We
    deal in whole records, so that none is lost. (T.-M. H. Hsu, H. Qi, M. Brown: Measuring the
    Effects of Non-Identical Data Distribution for Federated Visual Classification, 2019,
    https://arxiv.org/abs/1909.06335, draw the labels of each owner instead and keep sizes equal.)

    Args:
        labels: of the records.
        owners: how many.
        alpha: small = each label lies with few owners; large = nearly equal shares.
        rng: decides who gets what.

    Returns:
        positions of each owner's records, rising.
    """
    order = torch.randperm(len(labels), generator=rng)
    draws = np.random.default_rng(child_rng(rng, "dirichlet").initial_seed())
    owner_of = torch.empty(len(labels), dtype=torch.int64)
    for label in labels.unique().tolist():
        mine = order[labels[order] == label]
        parts = draws.dirichlet(np.full(owners, alpha))
        borders = np.rint(np.cumsum(parts) * len(mine)).astype(np.int64)
        borders[-1] = len(mine)  # a sum of 1, less what rounding ate
        sizes = np.diff(borders, prepend=0)
        owner_of[mine] = torch.from_numpy(np.repeat(np.arange(owners), sizes))
    sorted_owners, positions = owner_of.sort(stable=True)
    counts = torch.bincount(sorted_owners, minlength=owners)
    return tuple(positions.split(counts.tolist()))


def dealt(
    labels: Int64[Tensor, " n"] | None,
    records: int,
    holds: Sequence[bool],
    alpha: float | None,
    rng: torch.Generator,
) -> tuple[Share, ...]:
    """A share for each owner; those that hold nothing get an empty one.

    Raises:
        UsageError: nobody holds records, or ``alpha`` is not above 0.
        DataError: shares by label of records without labels.
    """
    holders = [number for number, held in enumerate(holds) if held]
    if not holders:
        raise UsageError(
            f"none of {len(holds)} owners may hold records; expected at least one with owns=true"
        )
    if alpha is None:
        given = equal_shares(records, len(holders), rng)
    elif labels is None:
        raise DataError(
            "crowd.shares=dirichlet needs labels y, and these records have none; use iid"
        )
    elif not alpha > 0:
        raise UsageError(f"crowd.alpha={alpha}; expected a number above 0, for example 0.5")
    else:
        given = dirichlet_shares(labels, len(holders), alpha, rng)
    shares = [torch.empty(0, dtype=torch.int64) for _ in holds]
    for number, share in zip(holders, given, strict=True):
        shares[number] = share
    return tuple(shares)
