"""Likelihood-ratio membership inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, Fit, MembershipGuess, View
from privbench.errors import NotApplicable, UsageError
from privbench.toolkit.answers import log_probabilities
from privbench.toolkit.densities import confidence, deviations, log_ratio
from privbench.toolkit.shadows import ShadowModels, check_recipe, shadow_logits

MODES = ("online", "offline")


@dataclass(frozen=True, kw_only=True)
class Lira(Attack):
    """LiRA: is the model's confidence in a record that of models trained on it, or without it?

    Carlini, Chien, Nasr, Song, Terzis, Tramèr, "Membership Inference Attacks From First
    Principles", IEEE S&P 2022, https://arxiv.org/abs/2112.03570.

    We differ: one query a record, without augmented copies, and the global variance is pooled
    around each record's own means and over both sides, since we train tens of shadow models.

    Args:
        mode: ``online``, shadow models on random halves of the candidates; ``offline``, on halves
            of the auxiliary records alone.
        variance: ``global`` or ``per_example`` (the paper's choice from 64 models on).
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "recipe",
        "released_weights|oracle_probabilities",
    )
    source: ClassVar[str] = (
        "Carlini, Chien, Nasr, Song, Terzis, Tramèr, Membership Inference Attacks From First "
        "Principles, 2022, https://arxiv.org/abs/2112.03570"
    )

    mode: str = "online"
    variance: str = "global"

    def fits(self) -> tuple[Fit, ...]:
        """The shadow models."""
        if self.mode not in MODES:
            raise UsageError(f"attack.mode='{self.mode}' is unknown; expected online or offline")
        return (ShadowModels(pairing="complementary" if self.mode == "online" else "auxiliary"),)

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate; online, 0 separates "more likely in" from "more likely out".

        Raises:
            NotApplicable: no labelled candidates, or nothing to ask the model by.
            UsageError: shadow models of another recipe, or too few of them.
        """
        candidates = view.public.candidates
        if candidates is None or candidates.y is None or not view.fitted:
            raise NotApplicable(
                "lira needs labelled candidates and fitted shadow models; choose threat=released"
            )
        (fitted, *_) = view.fitted
        check_recipe(fitted, view.public.recipe)
        seen = confidence(log_probabilities(view, candidates.x), candidates.y)
        logits = shadow_logits(fitted, view.topology.net, candidates.x.to(view.device)).cpu()
        shadows = confidence(logits, candidates.y)
        if self.mode == "offline":
            return MembershipGuess(deviations(seen, shadows, self.variance))
        scores = log_ratio(seen, shadows, fitted.tensors["member"], self.variance)
        return MembershipGuess(scores, threshold=0.0)
