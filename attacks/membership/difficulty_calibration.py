"""Membership inference by a loss from which the record's own difficulty is taken off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, Fit, MembershipGuess, View
from privbench.toolkit.evidence import gathered, labelled, shadows_of
from privbench.toolkit.shadows import ShadowModels


@dataclass(frozen=True, kw_only=True)
class DifficultyCalibration(Attack):
    """The target's loss less the mean loss of models that never saw the record.

    Watson, Guo, Cormode, Sablayrolles, "On the Importance of Difficulty Calibration in Membership
    Inference Attacks", ICLR 2022, https://arxiv.org/abs/2111.08440 (calibrated loss).

    Example::

        privbench regime=centralized threat=released attack=difficulty_calibration
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "auxiliary",
        "recipe",
        "released_weights|oracle_probabilities",
    )
    source: ClassVar[str] = (
        "Watson, Guo, Cormode, Sablayrolles, On the Importance of Difficulty Calibration in Membership "
        "Inference Attacks, 2022, https://arxiv.org/abs/2111.08440"
    )

    def fits(self) -> tuple[Fit, ...]:
        """Models trained on auxiliary records, shared with every attack that asks for the same."""
        return (ShadowModels(pairing="auxiliary"),)

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by how much likelier the target finds its label than the others do.

        Raises:
            NotApplicable: no labelled candidates, or nothing to ask.
            UsageError: shadow models of another recipe.
        """
        candidates = labelled(view, "difficulty_calibration")
        fitted = shadows_of(view, "difficulty_calibration")
        said = gathered(view, fitted, candidates, known=False)
        return MembershipGuess(said.log_p - said.shadow_log_p.mean(dim=0), threshold=0.0)
