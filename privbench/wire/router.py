"""From what a regime sends to what parties see.

Most regimes send each message from one party to another. The simulated crowd computes a layer whole
and sends it once; its router cuts from it the blocks that devices would have sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Message, Seat

EVERYONE = "*"
"""Sender or receiver of a message that is kept whole, to be cut by a router."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What a recording has of one step: all a router may derive messages from.

    Args:
        messages: as the regime sent them, in order.
        state: parameters in force; empty where none were kept.
    """

    messages: tuple[Message, ...]
    state: Mapping[str, Tensor]


class Router(ABC):
    """Cuts whole messages; built again from a stored topology by ``from_topology``-like constructors."""

    def reads(self, kept: Callable[[int], Kept]) -> None:  # noqa: B027 - most need it not
        """From now on it cuts what was recorded, of which ``kept`` gives a step."""

    @abstractmethod
    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Who owns each row of this step's batch."""

    @abstractmethod
    def cut(
        self, message: Message, owners: Int64[Tensor, " rows"], seat: Seat
    ) -> Iterable[Message]:
        """The messages, from party to party, that this one stands for and ``seat`` sees."""

    @abstractmethod
    def nbytes(self, message: Message) -> int:
        """Bytes that all of them take on the wire, headers included."""


class Direct(Router):
    """Every message already goes from one party to another."""

    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Nothing to note."""

    def cut(
        self, message: Message, owners: Int64[Tensor, " rows"], seat: Seat
    ) -> Iterable[Message]:
        """The message itself, if the seat sees it."""
        return (message,) if seat.sees(message.sender, message.receiver) else ()

    def nbytes(self, message: Message) -> int:
        """Its own bytes."""
        return message.nbytes
