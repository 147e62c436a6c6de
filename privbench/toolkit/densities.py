"""Scores of membership: logit-scaled confidence, and the ratio of two Gaussian densities."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from privbench.errors import UsageError

VARIANCES = ("global", "per_example")
CONVENTIONS = ("density", "tail")

FLOOR = math.log(torch.finfo(torch.float32).tiny)
"""Least log-probability told apart from 0 (about -87): what a float32 oracle can still say."""

_BLOCK = (
    256  # records at a time: those of hundreds of models fit the cache, and memory stays bounded
)


def confidence(
    log_p: Float[Tensor, "*models n classes"], y: Int64[Tensor, " n"]
) -> Float[Tensor, "*models n"]:
    """Logit-scaled confidence ``log p_y - log(1 - p_y)`` (Carlini et al., "Membership Inference
    Attacks From First Principles", 2022, https://arxiv.org/abs/2112.03570, equation 3).

    ``1 - p_y`` is summed over the other classes, which keeps its digits where ``p_y`` is almost 1. What
    over- or underflows in that sum lies outside the range of answers.

    Args:
        log_p: logits or log-probabilities (a constant more on a row changes nothing).
        y: the records' labels.

    Returns:
        float64, within +- ``-FLOOR``; of float32 logits exact to their own rounding.
    """
    log_p = log_p if log_p.dtype == torch.float64 else log_p.float()
    index = y.to(log_p.device).expand(log_p.shape[:-1]).unsqueeze(-1)
    odds = (log_p - log_p.gather(-1, index)).exp_().scatter_(-1, index, 0.0).sum(-1)
    return odds.log().neg().double().clamp(FLOOR, -FLOOR)


def log_ratio(
    seen: Float[Tensor, " n"],
    shadows: Float[Tensor, "models n"],
    member: Bool[Tensor, "models n"],
    variance: str = "global",
    convention: str = "density",
) -> Float[Tensor, " n"]:
    """Log-likelihood of ``seen`` under "trained on it" less that under "not trained on it".

    Both are Gaussians with a mean for each record. ``global``: one variance for each side, pooled
    over all records around their own means (steadier with few models); ``per_example``: a variance
    for each record and side.

    ``density`` takes the Gaussians' densities at ``seen``; ``tail`` the chance that a model trained on
    the record says at most that, and that another says at least that: it keeps rising where a density
    falls again, above both means.

    Args:
        seen: the target's confidence in each record.
        shadows: the shadow models' confidence.
        member: which shadow model was trained on which record.

    Raises:
        UsageError: unknown variance or convention, or a record with too few models on one side.
    """
    _check(variance, convention)
    least = min(int(member.sum(0).min()), int((~member).sum(0).min()))
    if least < 2:
        raise UsageError(
            "a likelihood ratio needs 2 shadow models on each side of every record; a record has "
            f"{least}: raise threat.budget.shadow_models to at least 4"
        )
    (mean_in, variance_in), (mean_out, variance_out) = _moments(shadows, member, variance)
    if convention == "tail":
        above_in = torch.special.log_ndtr((seen - mean_in) / variance_in.sqrt())
        return above_in - torch.special.log_ndtr((mean_out - seen) / variance_out.sqrt())
    return _log_density(seen, mean_in, variance_in) - _log_density(seen, mean_out, variance_out)


def deviations(
    seen: Float[Tensor, " n"],
    shadows: Float[Tensor, "models n"],
    variance: str = "global",
    convention: str = "tail",
    member: Bool[Tensor, "models n"] | None = None,
) -> Float[Tensor, " n"]:
    """How far ``seen`` lies above what models not trained on the record say, in standard deviations.

    The offline score. ``tail`` orders records as the one-sided probability of Carlini et al. (equation
    4) does, and does not saturate; ``density`` by how unlikely ``seen`` is on either side.

    Args:
        member: which shadow model was trained on which record and is left out there; None = no one.

    Raises:
        UsageError: unknown variance, or fewer than 2 models that were not trained on a record.
    """
    _check(variance, convention)
    inside = torch.zeros_like(shadows, dtype=torch.bool) if member is None else member
    least = len(shadows) - int(inside.sum(0).max()) if inside.numel() else 0
    if least < 2:
        raise UsageError(
            f"a spread needs at least 2 shadow models, found {least}: "
            "raise threat.budget.shadow_models"
        )
    _, (mean, spread) = _moments(shadows, inside, variance)
    found = (seen - mean) / spread.sqrt()
    return found.abs() if convention == "density" else found


def _check(variance: str, convention: str) -> None:
    for name, value, known in (
        ("variance", variance, VARIANCES),
        ("convention", convention, CONVENTIONS),
    ):
        if value not in known:
            raise UsageError(f"attack.{name}='{value}' is unknown; expected {' or '.join(known)}")


class _Gaussian(NamedTuple):
    """Mean of each record, and the variance around it: of each, or of all."""

    mean: Float[Tensor, " n"]
    variance: Tensor


def _moments(
    values: Float[Tensor, "models n"], member: Bool[Tensor, "models n"], variance: str
) -> tuple[_Gaussian, _Gaussian]:
    """What models trained on a record say, and what the others say."""
    found = []
    parts = zip(values.split(_BLOCK, dim=1), member.split(_BLOCK, dim=1), strict=True)
    for some, inside in parts:
        weight = inside.to(some.dtype)
        count, total = weight.sum(0), (some * weight).sum(0)
        mean_in, mean_out = total / count, (some.sum(0) - total) / (len(some) - count)
        square = (some - torch.where(inside, mean_in, mean_out)).square_()
        square_in = (square * weight).sum(0)
        found.append((mean_in, square_in, count, mean_out, square.sum(0) - square_in))
    mean_in, square_in, count, mean_out, square_out = (
        torch.cat(p) for p in zip(*found, strict=True)
    )
    return (
        _Gaussian(mean_in, _spread(square_in, count - 1, variance)),
        _Gaussian(mean_out, _spread(square_out, len(values) - count - 1, variance)),
    )


def _spread(square: Tensor, freedom: Tensor, variance: str) -> Tensor:
    if variance == "global":
        square, freedom = square.sum(), freedom.sum()
    return (square / freedom).clamp(min=1e-6)


def _log_density(at: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return -0.5 * ((at - mean).square() / variance + variance.log())
