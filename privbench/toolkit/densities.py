"""Scores of membership: logit-scaled confidence, and the ratio of two Gaussian densities."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from privbench.errors import UsageError

VARIANCES = ("global", "per_example")
CONVENTIONS = ("density", "tail")

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
    mean_in, variance_in = _moments(shadows, member, variance)
    mean_out, variance_out = _moments(shadows, ~member, variance)
    if convention == "tail":
        above_in = torch.special.log_ndtr((seen - mean_in) / variance_in.sqrt())
        return above_in - torch.special.log_ndtr((mean_out - seen) / variance_out.sqrt())
    return _log_density(seen, mean_in, variance_in) - _log_density(seen, mean_out, variance_out)


def deviations(
    seen: Float[Tensor, " n"],
    shadows: Float[Tensor, "models n"],
    variance: str = "global",
    convention: str = "tail",
) -> Float[Tensor, " n"]:
    """How far ``seen`` lies above what models not trained on the record say, in standard deviations.

    The offline score. ``tail`` orders records as the one-sided probability of Carlini et al. (equation
    4) does, and does not saturate; ``density`` by how unlikely ``seen`` is on either side.

    Raises:
        UsageError: unknown variance, or fewer than 2 models.
    """
    _check(variance, convention)
    if len(shadows) < 2:
        raise UsageError(
            f"a spread needs at least 2 shadow models, found {len(shadows)}: "
            "raise threat.budget.shadow_models"
        )
    spread = shadows.var(0)
    spread = spread.mean() if variance == "global" else spread
    found = (seen - shadows.mean(0)) / spread.clamp(min=1e-6).sqrt()
    return found.abs() if convention == "density" else found


def _check(variance: str, convention: str) -> None:
    for name, value, known in (
        ("variance", variance, VARIANCES),
        ("convention", convention, CONVENTIONS),
    ):
        if value not in known:
            raise UsageError(f"{name}='{value}' is unknown; expected {' or '.join(known)}")


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
