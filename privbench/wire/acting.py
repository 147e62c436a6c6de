"""An actor on the wire: it is shown what its seat sees, and may change what its seat sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Actor, Message, Party, Stand, Topology, child_rng, no_rows
from privbench.errors import PluginError
from privbench.wire.router import Direct, Router


class Acting:
    """Holds an actor to its seat.

    Where a message stands for those of many (see ``Router``), the actor is shown the ones of its seat. A
    layer is carried once: what it answers for one receiver goes to all.

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

    def sends(self, party: Party) -> bool:
        """Is this one of its seat's own parties?"""
        return self._stand is not None and party in self._stand.seat.parties

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
        whole = message.payload
        for part in self._router.cut(message, self._owners, seat):
            answer = self._actor.act(part, child_rng(rng, part.sender, part.receiver))
            if answer is part or answer.payload is part.payload:
                continue
            if part.sender not in seat.parties:
                raise PluginError(
                    f"{self._name} changed a {part.kind} that {part.sender} sent; expected changes of "
                    f"what its own seat sends: {', '.join(seat.parties)}"
                )
            whole = whole.clone() if whole is message.payload else whole
            _put(whole, message, self._own(part, answer))
        return message if whole is message.payload else replace(message, payload=whole)

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

    @property
    def _name(self) -> str:
        return type(self._actor).__name__


def _put(whole: Tensor, message: Message, part: Message) -> None:
    """Write a part back into the whole layer that the simulated crowd carries once, for all receivers."""
    places = {unit: place for place, unit in enumerate(message.units or range(whole.shape[1]))}
    columns = torch.tensor([places[unit] for unit in part.units or places], device=whole.device)
    rows = torch.searchsorted(message.rows, part.rows).to(
        whole.device
    )  # a micro-batch has some alone
    whole[rows[:, None], columns] = part.payload
