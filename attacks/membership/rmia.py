"""Robust membership inference: is the record likelier, under the target, than most others?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, Fit, MembershipGuess, View
from privbench.errors import UsageError
from privbench.toolkit.evidence import auxiliary_of, gathered, labelled, shadows_of
from privbench.toolkit.likelihoods import average_log_p, outside_log_p
from privbench.toolkit.settings import above
from privbench.toolkit.shadows import ShadowModels

MODES = ("online", "offline")
TIE = 1e-6  # what the ratio itself adds, so that records with equal shares keep an order


@dataclass(frozen=True, kw_only=True)
class Rmia(Attack):
    """RMIA: the share of population records that a candidate beats in relative likelihood.

    Zarifzadeh, Liu, Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024,
    https://arxiv.org/abs/2312.03262: a candidate x beats a population record z if
    (p(x | target) / p(x)) / (p(z | target) / p(z)) >= gamma, where p(.) is a mean over shadow models.

    We differ: the population is the auxiliary records, and ties among shares, which a small population
    makes many, are ordered by the candidate's own ratio.

    Args:
        mode: ``online``, p(x) is the mean over shadow models trained on halves of the candidates;
            ``offline``, over models trained on auxiliary records, corrected by ``a``.
        gamma: how much likelier the candidate has to be.
        a: how far p(x) of models trained on x is told by that of others: ((1 + a) p_out + 1 - a) / 2.
        queries: copies of a record that are asked about.

    Example::

        privbench regime=centralized threat=released attack=rmia attack.mode=offline
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "auxiliary",
        "recipe",
        "released_weights|oracle_probabilities",
    )
    source: ClassVar[str] = (
        "Zarifzadeh, Liu, Shokri, Low-Cost High-Power Membership Inference Attacks, 2024, "
        "https://arxiv.org/abs/2312.03262"
    )

    mode: str = "online"
    gamma: float = 2.0
    a: float = 0.3  # the paper's for CIFAR-10
    queries: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        above(self, 0, "gamma")

    def fits(self) -> tuple[Fit, ...]:
        """The shadow models, shared with every attack that asks for the same."""
        if self.mode not in MODES:
            raise UsageError(f"attack.mode='{self.mode}' is unknown; expected online or offline")
        return (ShadowModels(pairing="complementary" if self.mode == "online" else "auxiliary"),)

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by the share of auxiliary records that it beats; a half separates.

        Raises:
            NotApplicable: no labelled candidates or auxiliary records, or nothing to ask.
            UsageError: shadow models of another recipe.
        """
        candidates, auxiliary = labelled(view, "rmia"), auxiliary_of(view, "rmia")
        fitted, online = shadows_of(view, "rmia"), self.mode == "online"
        one = gathered(view, fitted, candidates, self.queries, known=online)
        # offline, each auxiliary record is in half of the models: those without it speak for it
        many = gathered(view, fitted, auxiliary, self.queries, known=not online)
        prior = average_log_p(one.shadow_log_p) if online else outside_log_p(one, self.a)
        ratio = one.log_p - prior
        others = many.log_p - outside_log_p(many, self.a)
        scores = _share_beaten(ratio, others, math.log(self.gamma))
        return MembershipGuess(scores, threshold=0.5, exposure=one.exposure())


def _share_beaten(
    ratio: Float[Tensor, " n"], others: Float[Tensor, " m"], margin: float
) -> Float[Tensor, " n"]:
    """Share of ``others`` that each ratio exceeds by the margin, and a little of the ratio itself."""
    below = torch.searchsorted(others.sort().values, (ratio - margin).contiguous(), right=True)
    return below / len(others) + TIE * torch.tanh(ratio / 10)
