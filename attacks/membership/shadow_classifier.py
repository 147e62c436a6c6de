"""Membership inference by an attack model that learned on shadow models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, Fit, MembershipGuess, View
from privbench.toolkit.answers import log_probabilities
from privbench.toolkit.evidence import auxiliary_of, labelled, shadows_of
from privbench.toolkit.features import of_answers
from privbench.toolkit.logistic import fit_logistic
from privbench.toolkit.shadows import ShadowModels, shadow_logits


@dataclass(frozen=True, kw_only=True)
class ShadowClassifier(Attack):
    """Learns from shadow models what answers to their own records look like.

    Shokri, Stronati, Song, Shmatikov, "Membership Inference Attacks Against Machine Learning Models",
    IEEE S&P 2017, https://arxiv.org/abs/1610.05820.

    We differ: one logistic regression on the sorted answer and the label's part in it takes the place of a
    network for each class, and shadow models are trained on halves of the auxiliary records.

    Example::

        privbench regime=centralized threat=released attack=shadow_classifier
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "auxiliary",
        "recipe",
        "released_weights|oracle_probabilities",
    )
    source: ClassVar[str] = (
        "Shokri, Stronati, Song, Shmatikov, Membership Inference Attacks Against Machine Learning "
        "Models, 2017, https://arxiv.org/abs/1610.05820"
    )

    def fits(self) -> tuple[Fit, ...]:
        """Models trained on auxiliary records, shared with every attack that asks for the same."""
        return (ShadowModels(pairing="auxiliary"),)

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by the attack model's log-odds.

        Raises:
            NotApplicable: no labelled candidates or auxiliary records, or nothing to ask.
            UsageError: shadow models of another recipe.
        """
        candidates = labelled(view, "shadow_classifier")
        auxiliary = auxiliary_of(view, "shadow_classifier")
        fitted = shadows_of(view, "shadow_classifier")
        answers = shadow_logits(fitted, view.topology.net, auxiliary.x.to(view.device)).cpu()
        seen = torch.cat([of_answers(answer, auxiliary) for answer in answers])
        model = fit_logistic(seen, fitted.tensors["member"].flatten())
        asked = of_answers(log_probabilities(view, candidates.x), candidates)
        return MembershipGuess(model(asked), threshold=0.0)
