"""Likelihood-ratio membership inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, Fit, MembershipGuess, View
from privbench.errors import UsageError
from privbench.toolkit.densities import deviations, log_ratio
from privbench.toolkit.evidence import gathered, labelled, shadows_of
from privbench.toolkit.shadows import ShadowModels

MODES = ("online", "offline")


@dataclass(frozen=True, kw_only=True)
class Lira(Attack):
    """LiRA: is the model's confidence in a record that of models trained on it, or without it?

    Carlini, Chien, Nasr, Song, Terzis, Tramèr, "Membership Inference Attacks From First
    Principles", IEEE S&P 2022, https://arxiv.org/abs/2112.03570.

    We differ: confidences of several queries are averaged before one Gaussian is fitted to them, and
    the global variance is pooled around each record's own means and over both sides, since we train
    tens of shadow models.

    Args:
        mode: ``online``, shadow models on random halves of the candidates; ``offline``, on halves
            of the auxiliary records alone.
        variance: ``global`` or ``per_example`` (the paper's choice from 64 models on).
        convention: ``density`` or ``tail`` of the Gaussians; None = the paper's, ``density`` online and
            ``tail`` offline.
        queries: copies of a record that are asked about: mirrored and moved images.

    Example::

        privbench regime=centralized threat=released attack=lira attack.mode=offline
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
    convention: str | None = None
    queries: int = 1

    def fits(self) -> tuple[Fit, ...]:
        """The shadow models."""
        if self.mode not in MODES:
            raise UsageError(f"attack.mode='{self.mode}' is unknown; expected online or offline")
        return (ShadowModels(pairing="complementary" if self._online else "auxiliary"),)

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate; online, 0 separates "more likely in" from "more likely out".

        Raises:
            NotApplicable: no labelled candidates, or nothing to ask the model by.
            UsageError: shadow models of another recipe, or too few of them.
        """
        candidates = labelled(view, "lira")
        said = gathered(view, shadows_of(view, "lira"), candidates, self.queries, self._online)
        seen, shadows = said.confidence, said.shadow_confidence
        if not self._online:
            convention = self.convention or "tail"
            scores = deviations(seen, shadows, self.variance, convention)
            return MembershipGuess(scores, exposure=said.exposure())
        convention = self.convention or "density"
        scores = log_ratio(seen, shadows, said.member, self.variance, convention)
        return MembershipGuess(scores, threshold=0.0, exposure=said.exposure())

    @property
    def _online(self) -> bool:
        return self.mode == "online"
