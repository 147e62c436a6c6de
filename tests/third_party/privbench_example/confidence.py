"""Membership from the model's largest probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, MembershipGuess, View
from privbench.errors import NotApplicable


@dataclass(frozen=True, kw_only=True)
class Confidence(Attack):
    """A confident model has seen the record, whatever its label.

    Salem et al. ML-Leaks. 2019. https://arxiv.org/abs/1806.01246 (adversary 3, maximum posterior).

    Args:
        temperature: divides the logits.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "released_weights")
    source: ClassVar[str] = "Salem et al. ML-Leaks. 2019. https://arxiv.org/abs/1806.01246"

    temperature: float = 1.0

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """The largest log-probability of each candidate."""
        candidates, net = view.public.candidates, view.public.net
        if candidates is None or net is None:
            raise NotApplicable("confidence needs candidates and the released weights")
        with torch.no_grad():
            logits = net.module()(candidates.x) / self.temperature
        return MembershipGuess(logits.log_softmax(dim=1).amax(dim=1))
