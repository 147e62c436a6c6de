"""Attacks that look at nothing: doubles whose scores must not differ from chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import (
    Attack,
    InversionGuess,
    MembershipGuess,
    ReconstructionGuess,
    Samples,
    View,
)
from privbench.errors import NotApplicable
from privbench.toolkit.priors import expected

DOUBLE = "none: a double that looks at no message and no weight"


def _inputs(view: View) -> Samples:
    """Any inputs that the seat holds, for their shape."""
    own = view.own.samples if view.own is not None else None
    for held in (view.public.auxiliary, view.public.candidates, own):
        if held is not None and len(held):
            return held
    raise NotApplicable(
        "a blind guess needs inputs to know their shape; choose a split with auxiliary records "
        "(data.split=thirds)"
    )


@dataclass(frozen=True, kw_only=True)
class BlindMembership(Attack):
    """Gives every candidate a random score."""

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates",)
    source: ClassVar[str] = DOUBLE
    double: ClassVar[bool] = True

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Uniform scores, one a candidate.

        Raises:
            NotApplicable: there are no candidates.
        """
        if view.public.candidates is None:
            raise NotApplicable("membership is asked of candidates; choose threat=released")
        return MembershipGuess(torch.rand(len(view.public.candidates), generator=rng))


@dataclass(frozen=True, kw_only=True)
class BlindReconstruction(Attack):
    """Guesses the mean auxiliary input for every victim."""

    goal: ClassVar[str] = "reconstruction"
    reads: ClassVar[tuple[str, ...]] = ("samples", "activation", "partial_sum", "update")
    source: ClassVar[str] = DOUBLE
    double: ClassVar[bool] = True

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """The same image for all victims; draws nothing.

        Raises:
            NotApplicable: the shape of inputs is not known.
        """
        mean = expected(view.public, _inputs(view).x.shape[1:])
        guess = mean.expand(len(view.victims), *mean.shape).clone()
        return ReconstructionGuess(view.victims, guess)


@dataclass(frozen=True, kw_only=True)
class BlindInversion(Attack):
    """Guesses the mean auxiliary input for every class."""

    goal: ClassVar[str] = "inversion"
    needs: ClassVar[tuple[str, ...]] = ("auxiliary",)
    source: ClassVar[str] = DOUBLE
    double: ClassVar[bool] = True

    def run(self, view: View, rng: torch.Generator) -> InversionGuess:
        """The same image for all classes; draws nothing.

        Raises:
            NotApplicable: no labelled auxiliary records tell how many classes there are.
        """
        known = _inputs(view)
        if known.y is None:
            raise NotApplicable("a guess for each class needs labels to know how many there are")
        mean = expected(view.public, known.x.shape[1:])
        return InversionGuess(mean.expand(int(known.y.max()) + 1, *mean.shape).clone())
