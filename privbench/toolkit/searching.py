"""What all attacks that search for the inputs behind gradients have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, Guess, ReconstructionGuess, View, child_rng
from privbench.toolkit.inverting import Job, Setting, inverted


class GradientSearch(Attack):
    """Inverts each update that holds a victim, from some start on, by some descent.

    Rows of one update come back in unknown order. What is inverted, and under which weights, depends on
    the seat: see ``toolkit.updates.observed``.
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("model_weights|stale_weights|initial_weights",)
    reads: ClassVar[tuple[str, ...]] = (
        "update",
        "stem_gradient",
        "global_weights",
        "stem_weights",
        "tail_gradient",
        "tail_weights",
    )

    @property
    @abstractmethod
    def setting(self) -> Setting:
        """How searches begin."""

    @abstractmethod
    def descend(self, view: View, jobs: Sequence[Job]) -> Float[Tensor, "jobs n ..."]:
        """Alike jobs of one network to their images; what is made of one does not depend on the others."""

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """Images for the rows of each update that holds a victim, one group an update.

        Raises:
            NotApplicable: the seat lacks weights of the network, or the shape of inputs.
        """
        (guess,) = inverted([view], [rng], self.setting, self.descend)
        return guess

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        """Updates of equal size are inverted together, whoever saw them."""
        rngs = [child_rng(rng, view.seat.name) for view in views]
        return list(inverted(views, rngs, self.setting, self.descend))
