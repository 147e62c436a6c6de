"""Membership inference against reference models: is the loss smaller than theirs on this record?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, Fit, MembershipGuess, View
from privbench.toolkit.densities import deviations
from privbench.toolkit.evidence import gathered, labelled, shadows_of
from privbench.toolkit.shadows import ShadowModels

TIE = 1e-6  # what the distance in standard deviations adds, so that equal shares keep an order


@dataclass(frozen=True, kw_only=True)
class Reference(Attack):
    """Attack-R: the share of models not trained on a record that are less confident in it.

    Ye, Maddi, Murakonda, Bindschaedler, Shokri, "Enhanced Membership Inference Attacks against Machine
    Learning Models", CCS 2022, https://arxiv.org/abs/2111.09679.

    We differ: with k reference models there are k + 1 shares only, and candidates of one share are ordered
    by how far the target lies above the models' mean.

    Example::

        privbench regime=centralized threat=released attack=reference
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "auxiliary",
        "recipe",
        "released_weights|oracle_probabilities",
    )
    source: ClassVar[str] = (
        "Ye, Maddi, Murakonda, Bindschaedler, Shokri, Enhanced Membership Inference Attacks against "
        "Machine Learning Models, 2022, https://arxiv.org/abs/2111.09679"
    )

    def fits(self) -> tuple[Fit, ...]:
        """Models trained on auxiliary records, shared with every attack that asks for the same."""
        return (ShadowModels(pairing="auxiliary"),)

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by that share.

        Raises:
            NotApplicable: no labelled candidates, or nothing to ask.
            UsageError: reference models of another recipe.
        """
        candidates, fitted = labelled(view, "reference"), shadows_of(view, "reference")
        said = gathered(view, fitted, candidates, known=False)
        share = (said.shadow_confidence < said.confidence).double().mean(dim=0)
        apart = deviations(said.confidence, said.shadow_confidence)
        scores = share + TIE * torch.tanh(apart / 10)
        return MembershipGuess(scores, threshold=0.9, exposure=said.exposure())
