"""Plug-ins of somebody else, for tests of what the harness does with any plug-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import (
    Actor,
    Attack,
    Fit,
    Fitted,
    Knowledge,
    MembershipGuess,
    Message,
    MessageDefense,
    View,
)
from privbench.errors import AttackError


@dataclass(frozen=True, kw_only=True)
class Guesses(Attack):
    """Scores every candidate by the sum of its pixels.

    Args:
        sign: of the scores.
        broken: raise instead.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates",)
    source: ClassVar[str] = "none: a test"

    sign: float = 1.0
    broken: bool = False

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """The scores."""
        if self.broken:
            raise AttackError("it broke")
        assert view.public.candidates is not None
        return MembershipGuess(self.sign * view.public.candidates.x.flatten(1).sum(dim=1))


@dataclass(frozen=True, kw_only=True)
class Takes(Fit):
    """Notes what it was given."""

    gets: ClassVar[tuple[str, ...]] = ()

    def fit(self, knowledge: Knowledge, rng: torch.Generator) -> Fitted:
        """Counts of what it holds, and a draw."""
        own = 0 if knowledge.own is None else len(knowledge.own.rows)
        facts = {"weights": len(knowledge.weights), "own": own}
        return Fitted({"draw": torch.rand(2, generator=rng)}, facts)


@dataclass(frozen=True, kw_only=True)
class TakesAll(Takes):
    """Asks for all that a fit may ask for."""

    gets: ClassVar[tuple[str, ...]] = ("weights", "own")


@dataclass(frozen=True, kw_only=True)
class Fitting(Guesses):
    """Has fits."""

    def fits(self) -> tuple[Fit, ...]:
        """One that asks for nothing of the seat, one that asks for all."""
        return (Takes(), TakesAll())


class Meddler(Actor):
    """Would change messages."""

    kinds: ClassVar[tuple[str, ...]] = ("activation",)

    def act(self, message: Message, rng: torch.Generator) -> Message:
        """Lets all pass."""
        return message


@dataclass(frozen=True, kw_only=True)
class Active(Guesses):
    """Needs to stand on the wire."""

    actor: ClassVar[type[Actor] | None] = Meddler


@dataclass(frozen=True, kw_only=True)
class Idle(MessageDefense):
    """Passes every message on."""

    kinds: ClassVar[tuple[str, ...]] = ("activation",)
    source: ClassVar[str] = "none: a test"

    def send(self, message: Message, rng: torch.Generator) -> Message:
        """The message."""
        return message
