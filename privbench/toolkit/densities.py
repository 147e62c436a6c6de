"""Scores of membership: logit-scaled confidence, and the ratio of two Gaussian densities."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from privbench.errors import UsageError

VARIANCES = ("global", "per_example")

FLOOR = math.log(torch.finfo(torch.float32).tiny)
"""Least log-probability told apart from 0 (about -87): what a float32 oracle can still say."""


def confidence(
    log_p: Float[Tensor, "*models n classes"], y: Int64[Tensor, " n"]
) -> Float[Tensor, "*models n"]:
    """Logit-scaled confidence ``log p_y - log(1 - p_y)`` (Carlini et al., "Membership Inference
    Attacks From First Principles", 2022, https://arxiv.org/abs/2112.03570, equation 3).

    ``1 - p_y`` is summed over the other classes, which keeps its digits where ``p_y`` is almost 1.

    Args:
        log_p: logits or log-probabilities (a constant more on a row changes nothing).
        y: the records' labels.

    Returns:
        float64, within +- ``-FLOOR``.
    """
    log_p = log_p.double()
    index = y.to(log_p.device).expand(log_p.shape[:-1]).unsqueeze(-1)
    own = log_p.gather(-1, index).squeeze(-1)
    others = log_p.scatter(-1, index, -math.inf).logsumexp(-1)
    return (own - others).clamp(FLOOR, -FLOOR)


def log_ratio(
    seen: Float[Tensor, " n"],
    shadows: Float[Tensor, "models n"],
    member: Bool[Tensor, "models n"],
    variance: str = "global",
) -> Float[Tensor, " n"]:
    """Log-density of ``seen`` under "trained on it" less that under "not trained on it".

    Both are Gaussians with a mean for each record. ``global``: one variance for each side, pooled
    over all records around their own means (steadier with few models); ``per_example``: a variance
    for each record and side.

    Args:
        seen: the target's confidence in each record.
        shadows: the shadow models' confidence.
        member: which shadow model was trained on which record.

    Raises:
        UsageError: unknown variance, or a record with too few models on one side.
    """
    if variance not in VARIANCES:
        raise UsageError(f"variance='{variance}' is unknown; expected {' or '.join(VARIANCES)}")
    least = min(int(member.sum(0).min()), int((~member).sum(0).min()))
    if least < 2:
        raise UsageError(
            "a likelihood ratio needs 2 shadow models on each side of every record; a record has "
            f"{least}: raise threat.budget.shadow_models to at least 4"
        )
    mean_in, variance_in = _moments(shadows, member, variance)
    mean_out, variance_out = _moments(shadows, ~member, variance)
    return _log_density(seen, mean_in, variance_in) - _log_density(seen, mean_out, variance_out)


def deviations(
    seen: Float[Tensor, " n"], shadows: Float[Tensor, "models n"], variance: str = "global"
) -> Float[Tensor, " n"]:
    """How far ``seen`` lies above what models not trained on the record say, in standard deviations.

    The offline score: it orders records as the one-sided probability of Carlini et al. (equation 4)
    does, and does not saturate.

    Raises:
        UsageError: unknown variance, or fewer than 2 models.
    """
    if variance not in VARIANCES:
        raise UsageError(f"variance='{variance}' is unknown; expected {' or '.join(VARIANCES)}")
    if len(shadows) < 2:
        raise UsageError(
            f"a spread needs at least 2 shadow models, found {len(shadows)}: "
            "raise threat.budget.shadow_models"
        )
    spread = shadows.var(0)
    spread = spread.mean() if variance == "global" else spread
    return (seen - shadows.mean(0)) / spread.clamp(min=1e-6).sqrt()


def _moments(
    values: Float[Tensor, "models n"], chosen: Bool[Tensor, "models n"], variance: str
) -> tuple[Tensor, Tensor]:
    """Mean of each record over the chosen models, and the variance around it."""
    count = chosen.sum(0)
    mean = (values * chosen).sum(0) / count
    square = ((values - mean).square() * chosen).sum(0)
    freedom = count - 1
    if variance == "global":
        square, freedom = square.sum(), freedom.sum()
    return mean, (square / freedom).clamp(min=1e-6)


def _log_density(at: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return -0.5 * ((at - mean).square() / variance + variance.log())
