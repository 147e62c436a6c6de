"""Plug-ins of which each breaks one rule, and doubles that calibrate the kit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from privbench.contract import (
    Attack,
    Guess,
    InversionGuess,
    MembershipGuess,
    Message,
    MessageDefense,
    Samples,
    View,
    child_rng,
)
from privbench.errors import NotApplicable


@dataclass(frozen=True, kw_only=True)
class Faulty(Attack):
    """Scores candidates by chance, apart from its fault.

    Args:
        fault: which rule it breaks; empty = none.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "released_weights")
    source: ClassVar[str] = "none: a test"

    fault: str = ""

    def run(self, view: View, rng: torch.Generator) -> Guess:
        """One score a candidate."""
        known = view.public.candidates
        assert known is not None
        scores = torch.rand(len(known), generator=rng)
        if self.fault == "short":
            return MembershipGuess(scores[1:])
        if self.fault == "another goal":
            return InversionGuess(known.x[:2])
        if self.fault == "writes":
            known.x[0] = 0.5
        if self.fault == "global":
            scores += torch.rand(len(known))
        if self.fault == "not a number" and view.public.net is not None:
            scores += view.public.net.module()(known.x).sum().detach()
        if self.fault == "mute" and not torch.isfinite(known.x.new_tensor(_first(view))):
            raise NotApplicable("no")
        if self.fault == "not repeatable":
            scores[0] = int.from_bytes(os.urandom(4), "big") % 997
        return MembershipGuess(scores)

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        """Seat by seat, or all with one generator."""
        if self.fault == "mixes":
            return [self.run(view, rng) for view in views]
        return [self.run(view, child_rng(rng, view.seat.name)) for view in views]


def _first(view: View) -> float:
    """A weight of the released model."""
    weights = view.public.net.weights if view.public.net is not None else None
    return float(next(iter((weights or {"": torch.zeros(1)}).values())).flatten()[0])


@dataclass(frozen=True, kw_only=True)
class Told(Attack):
    """The other calibrating double: a test gives it the truth, in a file.

    Args:
        truth: path of a text file with a 0 or 1 for each candidate.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "released_weights")
    source: ClassVar[str] = "none: a test"

    truth: str

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """The truth."""
        return MembershipGuess(torch.tensor([float(bit) for bit in Path(self.truth).read_text()]))


@dataclass(frozen=True, kw_only=True)
class ToldDouble(Told):
    """Says that it guesses blind, and does not."""

    double: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class ByLabel(Faulty):
    """Scores each candidate by its label: harmless, unless labels tell the truth."""

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """The labels."""
        assert isinstance(view.public.candidates, Samples)
        assert view.public.candidates.y is not None
        return MembershipGuess(view.public.candidates.y.float())


@dataclass(frozen=True, kw_only=True)
class NeedsMagic(Faulty):
    """Needs what no seat has."""

    needs: ClassVar[tuple[str, ...]] = ("magic",)


@dataclass(frozen=True, kw_only=True)
class NeedsAnother(Faulty):
    """Needs what the conformance kit's seats do not have."""

    needs: ClassVar[tuple[str, ...]] = ("stale_weights",)


@dataclass(frozen=True, kw_only=True)
class Misspelt(Faulty):
    """Needs what is written otherwise."""

    needs: ClassVar[tuple[str, ...]] = ("candidates|released_weigths",)


@dataclass(frozen=True, kw_only=True)
class MisspeltGoal(Faulty):
    """Guesses what is written otherwise."""

    goal: ClassVar[str] = "membershp"


@dataclass(frozen=True, kw_only=True)
class WantsLater(Faulty):
    """Guesses what nobody scores yet."""

    goal: ClassVar[str] = "attribute"


@dataclass(frozen=True, kw_only=True)
class NeedsLetters(Faulty):
    """A string where a tuple is meant."""

    needs: ClassVar[tuple[str, ...]] = "candidates"  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class ReadsMinds(Faulty):
    """Reads what nobody sends."""

    reads: ClassVar[tuple[str, ...]] = ("thoughts",)


@dataclass(frozen=True, kw_only=True)
class NeedsNothing(Faulty):
    """Needs nothing."""

    needs: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class WantsAnotherGoal(Faulty):
    """Guesses what nobody asked."""

    goal: ClassVar[str] = "lottery"


@dataclass(frozen=True, kw_only=True)
class Unchecked(Misspelt):
    """Has a check of its own in place of the contract's."""

    def __post_init__(self) -> None:
        return


@dataclass(frozen=True, kw_only=True)
class Unsourced(Faulty):
    """Comes from nowhere."""

    source: ClassVar[str] = "somebody's idea"


@dataclass(frozen=True, kw_only=True)
class Undocumented(Faulty):
    source: ClassVar[str] = "Somebody, Something, 2020, https://example.org"


@dataclass(frozen=True, kw_only=True)
class FaultyDefense(MessageDefense):
    """Adds noise, apart from its fault.

    Args:
        fault: which rule it breaks; empty = none.
    """

    kinds: ClassVar[tuple[str, ...]] = ("activation", "update")
    source: ClassVar[str] = "none: a test"

    fault: str = ""

    def send(self, message: Message, rng: torch.Generator) -> Message:
        """The message with noise."""
        x = message.payload
        noise = torch.rand(x.shape, generator=None if self.fault == "global" else rng)
        if self.fault == "in place":
            x += noise
            return message
        if self.fault == "dtype":
            return replace(message, payload=x.double())
        if self.fault == "nan":
            return replace(message, payload=x * torch.nan)
        if self.fault == "not repeatable":
            noise[0, 0] = int.from_bytes(os.urandom(4), "big")
        return replace(message, payload=x + noise)


@dataclass(frozen=True, kw_only=True)
class LoudDouble(FaultyDefense):
    """Says that it changes nothing, and does not."""

    double: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class DefendsThoughts(FaultyDefense):
    """Changes what nobody sends."""

    kinds: ClassVar[tuple[str, ...]] = ("thoughts",)
