"""The active part of an attack: a seat that deviates from the protocol while the model is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract.message import Message
from privbench.contract.threat import Seat
from privbench.contract.topology import Topology
from privbench.contract.view import Public


@dataclass(frozen=True, eq=False)
class Stand:
    """Where an actor stands, and what it knows from the start.

    Args:
        seat: its own; it may change what ``seat.parties`` send.
        topology: of the training that begins.
        public: what the seat is granted beside traffic. There is no released model yet.
        device: where it may compute.
    """

    seat: Seat
    topology: Topology
    public: Public
    device: str = "cpu"


class Actor(ABC):
    """An active seat: stands on the wire during training and may change what it sends.

    ``kinds`` are the messages that it is shown, as far as they pass by its seat. It lives for one
    training.
    """

    kinds: ClassVar[tuple[str, ...]]

    def open(self, stand: Stand, rng: torch.Generator) -> None:  # noqa: B027 - some know enough
        """Training begins; all randomness from ``rng``.

        Raises:
            NotApplicable: nothing can be done from there; then nothing is trained.
        """

    @abstractmethod
    def act(self, message: Message, rng: torch.Generator) -> Message:
        """The message that goes on: itself, or another payload in place of one that it sends.

        Of messages that others send it gets the part that its seat sees, and returns it as it is.
        """

    def notes(self) -> dict[str, torch.Tensor]:
        """What it learned, once training is over: its view's ``notes``."""
        return {}
