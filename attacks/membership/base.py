"""Bayes-optimal membership inference by one average over shadow models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, Fit, MembershipGuess, View
from privbench.errors import UsageError
from privbench.toolkit.evidence import gathered, labelled, shadows_of
from privbench.toolkit.likelihoods import average_log_p
from privbench.toolkit.shadows import ShadowModels

MODES = ("online", "offline")


@dataclass(frozen=True, kw_only=True)
class Base(Attack):
    """BASE: the target's likelihood of a record over the mean likelihood of shadow models.

    Lassila, Östman, Ngo, Graell i Amat, "Practical Bayes-Optimal Membership Inference Attacks", 2025,
    https://arxiv.org/abs/2505.24089.

    We differ: no sampling weight is tuned (it is one for all models), so that it orders records as the
    ratio of ``rmia`` does before it is compared with a population.

    Args:
        mode: ``online``, shadow models on random halves of the candidates; ``offline``, on auxiliary
            records alone.
        queries: copies of a record that are asked about.

    Example::

        privbench regime=centralized threat=released attack=base
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "recipe",
        "released_weights|oracle_probabilities",
    )
    source: ClassVar[str] = (
        "Lassila, Östman, Ngo, Graell i Amat, Practical Bayes-Optimal Membership Inference Attacks, "
        "2025, https://arxiv.org/abs/2505.24089"
    )

    mode: str = "online"
    queries: int = 1

    def fits(self) -> tuple[Fit, ...]:
        """The shadow models, shared with every attack that asks for the same."""
        if self.mode not in MODES:
            raise UsageError(f"attack.mode='{self.mode}' is unknown; expected online or offline")
        return (ShadowModels(pairing="complementary" if self.mode == "online" else "auxiliary"),)

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by its log-likelihood less the log of the shadow models' mean.

        Raises:
            NotApplicable: no labelled candidates, or nothing to ask.
            UsageError: shadow models of another recipe.
        """
        candidates, fitted = labelled(view, "base"), shadows_of(view, "base")
        said = gathered(view, fitted, candidates, self.queries, self.mode == "online")
        scores = said.log_p - average_log_p(said.shadow_log_p)
        return MembershipGuess(scores, exposure=said.exposure())
