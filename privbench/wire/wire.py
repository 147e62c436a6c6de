"""The wire: every regime speaks over it, and taps listen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Message, MessageDefense, Topology, child_rng
from privbench.wire.acting import Acting
from privbench.wire.router import Direct, Router
from privbench.wire.tap import Tap


class Wire:
    """Carries messages: defense, then actor, then taps, then delivery.

    A regime calls ``open`` once, ``begin`` at each step, ``send`` for each message (it goes on with
    what comes back), and ``hold`` with the weights in force at that step.

    Args:
        taps: who records.
        defenses: applied in order to the kinds that they name.
        actor: an active seat, or None.
        rng: all randomness of defenses and actor derives from it, by step, kind and layer.
    """

    def __init__(
        self,
        taps: Sequence[Tap] = (),
        defenses: Sequence[MessageDefense] = (),
        actor: Acting | None = None,
        rng: torch.Generator | None = None,
    ) -> None:
        self.taps = tuple(taps)
        self.defenses = tuple(defenses)
        self.actor = actor
        self.bytes: Counter[str] = Counter()  # sent so far, by kind
        self.altered = False  # did a defense change a message so far?
        self._rng = rng or torch.Generator().manual_seed(0)
        self._router: Router = Direct()

    def open(self, topology: Topology, router: Router | None = None) -> None:
        """Say who takes part; ``router`` cuts whole-layer messages into what devices send.

        Raises:
            NotApplicable: an actor can do nothing here.
        """
        self._router = router or Direct()
        if self.actor is not None:
            self.actor.open(topology, self._router, child_rng(self._rng, "actor"))
        for tap in self.taps:
            tap.open(topology, self._router)

    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Start a step: ``owners[i]`` is the number (in ``topology.owners``) of row i's owner."""
        self._router.begin(step, owners)
        if self.actor is not None:
            self.actor.begin(owners)
        for tap in self.taps:
            tap.begin(step, owners)

    def wants(self, step: int, kind: str) -> bool:
        """Would any tap keep such a message? An engine need not build what nobody keeps or changes."""
        return self.changes(kind) or any(tap.keeps(step, kind) for tap in self.taps)

    def changes(self, kind: str) -> bool:
        """May a defense or an actor change such a message?"""
        return self._shows(kind) or any(kind in each.kinds for each in self.defenses)

    def watches(self, step: int) -> bool:
        """Would any tap keep the parameters in force during this step?"""
        return any(tap.holds(step) for tap in self.taps)

    def derives(self, step: int, kind: str) -> bool:
        """Is such a message kept, and only by taps that can derive it from others of the step?

        Then an engine may ``lay_by`` what it is derived from and ``lend`` the parameters in force, in
        place of computing it. Whoever may change a message has to be sent it.
        """
        keeping = [tap for tap in self.taps if tap.keeps(step, kind)]
        return (
            bool(keeping)
            and not self.changes(kind)
            and all(tap.derives and tap.keeps(step, "activation") for tap in keeping)
        )

    def lay_by(self, message: Message) -> None:
        """Have taps keep what messages are derived from; nothing is sent, and no byte counted."""
        for tap in self.taps:
            tap.take(message)

    def lend(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Parameters in force during ``step``, from which messages are derived: no seat gets them.

        They are not copied, so ``get_back`` must be called before they change.
        """
        for tap in self.taps:
            tap.lend(step, state)

    def get_back(self) -> None:
        """Have taps be done with what was lent."""
        for tap in self.taps:
            tap.give_back()

    def send(self, message: Message) -> Message:
        """Deliver a message; the payload that comes back is detached from any graph."""
        message = self._carried(message, self.actor is not None)
        for tap in self.taps:
            tap.take(message)
        return message

    def masked(self, message: Message) -> Message:
        """The same for a message that nobody but its sender can read: its bytes count, no tap hears it."""
        return self._carried(message, self.actor is not None and self.actor.sends(message.sender))

    def unmask(self, message: Message) -> None:
        """Tell a sum of masked messages to whom it is for; its bytes were counted with theirs."""
        if self.actor is not None:
            self.actor.act(message, self._draw(message, "actor"))
        for tap in self.taps:
            tap.take(message)

    def _carried(self, message: Message, shown: bool) -> Message:
        """What defenses and, where it is shown it, the actor leave of a message."""
        for number, defense in enumerate(self.defenses):
            if message.kind in defense.kinds:
                sent = defense.send(message, self._draw(message, "defense", number))
                self.altered |= sent is not message and not defense.double
                message = sent
        if shown and self.actor is not None:
            message = self.actor.act(message, self._draw(message, "actor"))
        self.bytes[message.kind] += self._router.nbytes(message)
        return message

    def count(self, kind: str, nbytes: int) -> None:
        """Account for traffic of which no message is built because nobody keeps it."""
        self.bytes[kind] += nbytes

    def hold(self, step: int, state: Mapping[str, Tensor]) -> None:
        """The whole network's parameters in force during ``step``; seats get their part of it."""
        for tap in self.taps:
            tap.hold(step, state)

    def _shows(self, kind: str) -> bool:
        """Is a message of this kind shown to an active seat?"""
        return self.actor is not None and kind in self.actor.kinds

    def _draw(self, message: Message, *who: object) -> torch.Generator:
        where = (message.step, message.kind, message.layer, message.sender, message.receiver)
        return child_rng(self._rng, *who, *where)
