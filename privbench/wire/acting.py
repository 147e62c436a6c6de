"""An actor on the wire: it is shown what its seat sees, and may change what its seat sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Actor, Message, Seat, Stand, Topology, child_rng, no_rows
from privbench.errors import PluginError
from privbench.wire.router import Direct, Router


class Acting:
    """Holds an actor to its seat.

    Args:
        actor: of an attack.
        stand: where it stands, once it is known who takes part.
    """

    def __init__(self, actor: Actor, stand: Callable[[Topology], Stand]) -> None:
        self.kinds = frozenset(actor.kinds)
        self._actor, self._stand_of = actor, stand
        self._stand: Stand | None = None
        self._router: Router = Direct()
        self._owners = no_rows()

    def open(self, topology: Topology, router: Router, rng: torch.Generator) -> None:
        """Training starts.

        Raises:
            NotApplicable: the actor has no seat, or can do nothing from there.
        """
        self._router = router
        self._stand = self._stand_of(topology)
        self._actor.open(self._stand, child_rng(rng, "open"))

    def begin(self, owners: Int64[Tensor, " rows"]) -> None:
        """A step starts; who owns its rows."""
        self._owners = owners

    def act(self, message: Message, rng: torch.Generator) -> Message:
        """What goes on.

        Raises:
            PluginError: the actor changed what is not its seat's to change.
        """
        if self._stand is None or message.kind not in self.kinds:
            return message
        seat = self._stand.seat
        if message.sender in seat.parties:
            return self._own(message, self._actor.act(message, child_rng(rng, message.receiver)))
        for part in self._router.cut(message, self._owners, seat):
            answer = self._actor.act(part, child_rng(rng, part.sender, part.receiver))
            if answer is not part and answer.payload is not part.payload:
                raise PluginError(self._foreign(part, seat))
        return message

    def notes(self) -> dict[str, Tensor]:
        """What the actor learned, on the CPU."""
        notes = self._actor.notes()
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in notes.items()}

    def _own(self, message: Message, answer: Message) -> Message:
        """The answer, if all but the numbers is as it was."""
        found, expected = answer.payload, message.payload
        if answer is message or found is expected:
            return message
        if found.shape != expected.shape or not bool(found.isfinite().all()):
            raise PluginError(
                f"{self._name} answered a {message.kind} of '{message.layer}' with a payload of shape "
                f"{tuple(found.shape)}; expected finite numbers of shape {tuple(expected.shape)}"
            )
        return replace(message, payload=found.detach().to(expected))

    def _foreign(self, part: Message, seat: Seat) -> str:
        if part.sender in seat.parties:
            return (
                f"{self._name} changed the {part.kind} of '{part.layer}' that {part.sender} sends, and "
                "the simulated crowd carries layers whole; expected changes of its gradients and "
                "partial sums alone"
            )
        return (
            f"{self._name} changed a {part.kind} that {part.sender} sent; expected changes of what its "
            f"own seat sends: {', '.join(seat.parties)}"
        )

    @property
    def _name(self) -> str:
        return type(self._actor).__name__
