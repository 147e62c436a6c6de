"""Membership inference against a population: is the loss smaller than almost everybody's?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, MembershipGuess, View
from privbench.toolkit.answers import log_probabilities
from privbench.toolkit.densities import confidence
from privbench.toolkit.evidence import auxiliary_of, labelled

TIE = 1e-6  # what the confidence itself adds, so that equal shares keep an order


@dataclass(frozen=True, kw_only=True)
class Population(Attack):
    """Attack-P: the share of records of the same class, known to be out, that a candidate beats.

    Ye, Maddi, Murakonda, Bindschaedler, Shokri, "Enhanced Membership Inference Attacks against Machine
    Learning Models", CCS 2022, https://arxiv.org/abs/2111.09679.

    We differ: confidence takes the place of loss (it orders records of a class alike and is finite), and
    ties, which a small population makes many, are ordered by it.

    Example::

        privbench regime=centralized threat=released attack=population
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "auxiliary",
        "released_weights|oracle_probabilities",
    )
    source: ClassVar[str] = (
        "Ye, Maddi, Murakonda, Bindschaedler, Shokri, Enhanced Membership Inference Attacks against "
        "Machine Learning Models, 2022, https://arxiv.org/abs/2111.09679"
    )

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by that share; a class without auxiliary records is held against all.

        Raises:
            NotApplicable: no labelled candidates or auxiliary records, or nothing to ask.
        """
        candidates, auxiliary = labelled(view, "population"), auxiliary_of(view, "population")
        if candidates.y is None or auxiliary.y is None:
            return MembershipGuess(torch.zeros(len(candidates)))
        seen = confidence(log_probabilities(view, candidates.x), candidates.y)
        known = confidence(log_probabilities(view, auxiliary.x), auxiliary.y)
        scores = torch.empty_like(seen)
        for label in candidates.y.unique().tolist():
            mine, theirs = candidates.y == label, auxiliary.y == label
            others = (known[theirs] if bool(theirs.any()) else known).sort().values
            scores[mine] = torch.searchsorted(others, seen[mine]).double() / len(others)
        return MembershipGuess(scores + TIE * torch.tanh(seen / 10), threshold=0.9)
