"""Membership inference by entropy that knows the label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, MembershipGuess, Samples, View
from privbench.errors import NotApplicable
from privbench.toolkit.answers import log_probabilities
from privbench.toolkit.evidence import labelled


@dataclass(frozen=True, kw_only=True)
class ModifiedEntropy(Attack):
    """Small where the model is surely right, large where it is surely wrong.

    Song, Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX Security
    2021, https://arxiv.org/abs/2003.10595 (equation 8).

    We differ: scores are compared within a class, as its thresholds are, in units of the class's median
    over auxiliary records, where the seat has some and may ask so much; no shadow model is trained.

    Example::

        privbench regime=centralized threat=released attack=modified_entropy
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "released_weights|oracle_probabilities")
    source: ClassVar[str] = (
        "Song, Mittal, Systematic Evaluation of Privacy Risks of Machine Learning Models, 2021, "
        "https://arxiv.org/abs/2003.10595"
    )

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by its negative modified entropy, relative to its class.

        Raises:
            NotApplicable: no labelled candidates, or nothing to ask the model by.
        """
        candidates, auxiliary = labelled(view, "modified_entropy"), view.public.auxiliary
        scores = -_entropy(view, candidates)
        queries = view.budget.queries if view.public.net is None else None
        affordable = queries is None or queries >= len(candidates) + len(auxiliary or ())
        if auxiliary is None or auxiliary.y is None or not len(auxiliary) or not affordable:
            return MembershipGuess(scores)
        known = -_entropy(view, auxiliary)
        return MembershipGuess(scores - _class_medians(known, auxiliary, candidates), threshold=0.0)


def _entropy(view: View, samples: Samples) -> Float[Tensor, " n"]:
    """Logarithm of -(1 - p_y) log p_y - sum over other classes of p_c log(1 - p_c)."""
    if samples.y is None:
        raise NotApplicable("modified entropy needs labels, these records have none")
    log_p = log_probabilities(view, samples.x)
    p = log_p.exp()
    rest = torch.log1p(-p.clamp(max=1 - 1e-15))
    own = samples.y[:, None]
    others = (p * rest).scatter(1, own, 0.0).sum(dim=1)
    found = -(1 - p.gather(1, own)[:, 0]) * log_p.gather(1, own)[:, 0] - others
    return found.clamp(min=1e-30).log()


def _class_medians(
    known: Float[Tensor, " m"], auxiliary: Samples, candidates: Samples
) -> Float[Tensor, " n"]:
    """Median of each candidate's class over auxiliary records; of all, where it has none there."""
    if auxiliary.y is None or candidates.y is None:
        return known.median().expand(len(candidates))
    found = torch.full((len(candidates),), float(known.median()), dtype=known.dtype)
    for label in candidates.y.unique().tolist():
        theirs = known[auxiliary.y == label]
        if len(theirs):
            found[candidates.y == label] = theirs.median()
    return found
