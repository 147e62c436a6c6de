"""The likelihood of a record whatever the training set: means over shadow models."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from privbench.errors import UsageError
from privbench.toolkit.evidence import Evidence


def average_log_p(log_p: Float[Tensor, "models n"]) -> Float[Tensor, " n"]:
    """Logarithm of the mean likelihood over models."""
    return log_p.logsumexp(dim=0) - math.log(len(log_p))


def outside_log_p(said: Evidence, a: float) -> Float[Tensor, " n"]:
    """The same, guessed from models that were not trained on the record.

    ``((1 + a) p_out + 1 - a) / 2``: Zarifzadeh et al., "Low-Cost High-Power Membership Inference
    Attacks", 2024, https://arxiv.org/abs/2312.03262, section 3; those trained on it lie between p_out
    (a = 1) and 1 (a = -1).

    Raises:
        UsageError: ``a`` is no such number, or a record was in every model.
    """
    if not -1 <= a <= 1:
        raise UsageError(f"attack.a={a}; expected a number from -1 to 1")
    out = ~said.member
    if not bool(out.any(dim=0).all()):
        raise UsageError(
            "a record was in every shadow model, so that none can speak for the others; raise "
            "threat.budget.shadow_models to at least 2"
        )
    log_p = said.shadow_log_p.masked_fill(said.member, -math.inf).logsumexp(dim=0)
    mean = (log_p - out.sum(dim=0).double().log()).exp()
    return (((1 + a) * mean + 1 - a) / 2).log()
