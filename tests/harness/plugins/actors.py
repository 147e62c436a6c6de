"""Active plug-ins of somebody else: they change what they are told to, and note what they saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from privbench.contract import Actor, Attack, Message, ReconstructionGuess, Stand, View


class Meddler(Actor):
    """Adds a number to some messages.

    Args:
        kind: of message.
        by: what is added.
        foreign: to what others send too.
    """

    kinds: ClassVar[tuple[str, ...]] = ("activation", "gradient", "stem_weights", "global_weights")

    def __init__(self, kind: str, by: float, foreign: bool) -> None:
        self._kind, self._by, self._foreign = kind, by, foreign
        self._ends: set[tuple[str, str]] = set()
        self._draws: list[float] = []

    def open(self, stand: Stand, rng: torch.Generator) -> None:
        """Notes what it knows."""
        self._seat = stand.seat
        self._knows = [stand.public.auxiliary, stand.public.recipe, stand.public.net]
        self._draws.append(float(torch.rand((), generator=rng)))

    def act(self, message: Message, rng: torch.Generator) -> Message:
        """Something else, for messages of the kind."""
        self._ends.add((message.sender, message.receiver))
        mine = self._foreign or message.sender in self._seat.parties
        if message.kind != self._kind or not mine:
            return message
        return replace(message, payload=message.payload + self._by)

    def notes(self) -> dict[str, Tensor]:
        """Shares of what it was shown, and a draw."""
        mine = self._seat.parties
        own = [sender in mine or receiver in mine for sender, receiver in self._ends]
        knows = [float(part is not None) for part in self._knows]
        return {
            "own": torch.tensor(own),
            "knows": torch.tensor(knows),
            "draws": torch.tensor(self._draws),
        }


@dataclass(frozen=True, kw_only=True)
class Meddling(Attack):
    """Guesses grey.

    Args:
        kind: of message that is changed.
        by: what is added.
        foreign: to what others send too.
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("auxiliary",)
    reads: ClassVar[tuple[str, ...]] = ("activation", "stem_weights", "update")
    source: ClassVar[str] = "none: a test"
    actor: ClassVar[type[Actor] | None] = Meddler

    kind: str = "gradient"
    by: float = 0.5
    foreign: bool = False

    def acting(self) -> Actor:
        """Changes messages."""
        return Meddler(self.kind, self.by, self.foreign)

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """Grey."""
        return ReconstructionGuess(view.victims, torch.full((len(view.victims), 1, 8, 8), 0.5))


@dataclass(frozen=True, kw_only=True)
class Unnamed(Meddling):
    """Builds an actor that no constant names."""

    actor: ClassVar[type[Actor] | None] = None
