"""Membership inference by the loss alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, MembershipGuess, Samples, View
from privbench.errors import NotApplicable
from privbench.toolkit.answers import log_probabilities


@dataclass(frozen=True, kw_only=True)
class LossThreshold(Attack):
    """A small loss means a member.

    Yeom, Giacomelli, Fredrikson, Jha, "Privacy Risk in Machine Learning: Analyzing the Connection
    to Overfitting", IEEE CSF 2018, https://arxiv.org/abs/1709.01604 (section III).

    We differ: the threshold is the mean loss of the auxiliary records, where the seat has them and
    may ask so much, since the mean training loss that the paper uses is seldom published.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "released_weights|oracle_probabilities")
    source: ClassVar[str] = (
        "Yeom, Giacomelli, Fredrikson, Jha, Privacy Risk in Machine Learning: Analyzing the "
        "Connection to Overfitting, 2018, https://arxiv.org/abs/1709.01604"
    )

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by its negative loss.

        Raises:
            NotApplicable: no labelled candidates, or nothing to ask the model by.
        """
        candidates, auxiliary = view.public.candidates, view.public.auxiliary
        if candidates is None or candidates.y is None:
            raise NotApplicable(
                "loss_threshold needs labelled candidates; choose threat=released or threat=api"
            )
        scores = -_losses(view, candidates)
        queries = view.budget.queries if view.public.net is None else None
        affordable = queries is None or queries >= len(candidates) + len(auxiliary or ())
        if auxiliary is None or auxiliary.y is None or not len(auxiliary) or not affordable:
            return MembershipGuess(scores)
        return MembershipGuess(scores, threshold=float(-_losses(view, auxiliary).mean()))


def _losses(view: View, samples: Samples) -> Float[Tensor, " n"]:
    """Cross-entropy of each record, from 0 up."""
    if samples.y is None:
        raise NotApplicable("a loss needs labels, these records have none")
    chosen = log_probabilities(view, samples.x).gather(1, samples.y[:, None])
    return -chosen.squeeze(1)
