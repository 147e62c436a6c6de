"""Membership inference by how sure the model is, whatever it is sure of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, MembershipGuess, View
from privbench.toolkit.answers import log_probabilities
from privbench.toolkit.evidence import labelled


@dataclass(frozen=True, kw_only=True)
class Entropy(Attack):
    """A model is surer of records that it was trained on.

    Salem, Zhang, Humbert, Berrang, Fritz, Backes, "ML-Leaks: Model and Data Independent Membership
    Inference Attacks and Defenses on Machine Learning Models", NDSS 2019,
    https://arxiv.org/abs/1806.01246 (adversary 3).

    We differ: no threshold is fixed; the table shows what every threshold gives.

    Example::

        privbench regime=centralized threat=released attack=entropy
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "released_weights|oracle_probabilities")
    source: ClassVar[str] = (
        "Salem, Zhang, Humbert, Berrang, Fritz, Backes, ML-Leaks: Model and Data Independent Membership "
        "Inference Attacks and Defenses on Machine Learning Models, 2019, "
        "https://arxiv.org/abs/1806.01246"
    )

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by the negative entropy of the model's answer.

        Raises:
            NotApplicable: no candidates, or nothing to ask the model by.
        """
        log_p = log_probabilities(view, labelled(view, "entropy").x)
        return MembershipGuess((log_p.exp() * log_p).sum(dim=1))
