"""Parameters on their way: broadcasts of stem and tail, and slices between releaser and hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

from privbench.contract import HEADER_BYTES, Message, Party, Slice
from privbench.slicenet.graph import Stage, held_by
from privbench.wire.router import EVERYONE
from privbench.wire.wire import Wire

COORDINATOR: Party = "coordinator"
RELEASER: Party = "releaser"

Units = tuple[int, ...] | None


class Parcels:
    """Sends tensors of a network, or counts their bytes where nobody wants to see them.

    Args:
        wire: open.
        owned: tensors of ``stem`` and ``tail`` by place and name, live.
        stages: of the network.
    """

    def __init__(
        self, wire: Wire, owned: Mapping[str, Mapping[str, Tensor]], stages: Sequence[Stage]
    ) -> None:
        self._wire, self._owned, self._stages = wire, owned, stages
        self._step = -1
        self._others: dict[Tensor, Tensor] = {}  # that arrived with other values than were sent

    def broadcast(self, step: int, place: str, owners: int) -> None:
        """The stem or tail in force, to the owners of this step's rows."""
        kind = f"{place}_weights"
        if step != self._step:
            self._step, self._others = step, {}
        for name, tensor in self._owned[place].items():
            if self._wire.wants(step, kind):
                sent = tensor.detach().clone()
                got = self.send(step, kind, name, sent, COORDINATOR, EVERYONE)
                if got is not sent:
                    self._others[tensor.detach()] = got.to(sent)
            else:
                self._wire.count(kind, (nbytes(tensor) + HEADER_BYTES) * owners)

    @contextmanager
    def received(self) -> Iterator[None]:
        """For a time, stem and tail have the values that owners received in this step."""
        own = {tensor: tensor.clone() for tensor in self._others}
        for tensor, value in self._others.items():
            tensor.copy_(value)
        try:
            yield
        finally:
            for tensor, value in own.items():
                tensor.copy_(value)

    def slices(
        self, step: int, pieces: Sequence[Slice], to_hosts: bool, owned: bool = True
    ) -> None:
        """Slices (and stem and tail, with the coordinator) from the releaser, or to it."""
        moved: list[tuple[Party, str, Units, Tensor]] = []
        for place in ("stem", "tail") if owned else ():
            for name, tensor in self._owned[place].items():
                moved.append((COORDINATOR, name, None, tensor.detach()))
        for each in held_by(pieces, self._stages):
            if each.part.is_floating_point():
                moved.append((each.piece.party, each.name, each.units, each.part))
        wanted = self._wire.wants(step, "slice_weights")
        for party, name, units, held in moved:
            ends = (RELEASER, party) if to_hosts else (party, RELEASER)
            if wanted:
                self.send(step, "slice_weights", name, held.clone(), *ends, units)
            else:
                self._wire.count("slice_weights", nbytes(held) + HEADER_BYTES)

    def send(
        self,
        step: int,
        kind: str,
        name: str,
        payload: Tensor,
        sender: Party,
        receiver: Party,
        units: Units = None,
    ) -> Tensor:
        """One tensor, from one party to another, as it arrives."""
        message = Message(step, "train", sender, receiver, kind, name, units, payload)
        return self._wire.send(message).payload


def nbytes(tensor: Tensor) -> int:
    """Of a payload."""
    return tensor.numel() * tensor.element_size()
