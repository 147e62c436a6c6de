"""Membership from the probability of the right label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, MembershipGuess, View
from privbench.errors import NotApplicable


@dataclass(frozen=True, kw_only=True)
class Confidence(Attack):
    """A model that is sure of a record's own label has seen the record.

    Liwei Song, Prateek Mittal. Systematic Evaluation of Privacy Risks of Machine Learning Models.
    2021. https://arxiv.org/abs/2003.10595 (one threshold for all classes).

    Args:
        temperature: divides the logits.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "released_weights")
    source: ClassVar[str] = (
        "Song, Mittal. Systematic Evaluation of Privacy Risks of Machine Learning Models. 2021. "
        "https://arxiv.org/abs/2003.10595"
    )

    temperature: float = 1.0

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """The log-probability of each candidate's label."""
        candidates, net = view.public.candidates, view.public.net
        if candidates is None or candidates.y is None or net is None:
            raise NotApplicable("confidence needs labelled candidates and the released weights")
        with torch.no_grad():
            logits = net.module()(candidates.x) / self.temperature
        return MembershipGuess(logits.log_softmax(dim=1)[torch.arange(len(logits)), candidates.y])
