"""Membership inference by whether the model is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, MembershipGuess, View
from privbench.toolkit.evidence import labelled, right_choices


@dataclass(frozen=True, kw_only=True)
class Gap(Attack):
    """Whoever is classified rightly is called a member: as good as the gap between the accuracies.

    Yeom, Giacomelli, Fredrikson, Jha, "Privacy Risk in Machine Learning: Analyzing the Connection to
    Overfitting", IEEE CSF 2018, https://arxiv.org/abs/1709.01604 (section III).

    It needs labels alone, one query a record, and is the bar that every label-only attack has to pass.

    Example::

        privbench regime=centralized threat=api threat.answers=labels attack=gap
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "released_weights|oracle_probabilities|oracle_labels",
    )
    source: ClassVar[str] = (
        "Yeom, Giacomelli, Fredrikson, Jha, Privacy Risk in Machine Learning: Analyzing the Connection "
        "to Overfitting, 2018, https://arxiv.org/abs/1709.01604"
    )

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """1 for a candidate that the model gets right, else 0.

        Raises:
            NotApplicable: no labelled candidates, or nothing to ask the model by.
        """
        candidates = labelled(view, "gap")
        right = right_choices(view, candidates, candidates.x)
        return MembershipGuess(right, threshold=0.5)
