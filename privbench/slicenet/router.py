"""From whole layers to what devices send each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import HEADER_BYTES, Message, Party, Seat, Topology
from privbench.slicenet.links import OWNER, Link, Links
from privbench.wire.router import EVERYONE, Router


@dataclass(frozen=True, eq=False)
class _Route:
    """One message that a whole one stands for; rows None = all, units None = as they are.

    ``count`` is the number of rows, which a tensor is slow to tell.
    """

    sender: Party
    receiver: Party
    units: tuple[int, ...] | None
    rows: Int64[Tensor, " n"] | None
    count: int = 0


class CrowdRouter(Router):
    """Cuts what the simulated crowd sends whole.

    Whole messages have ``EVERYONE`` as receiver:

    - ``activation`` of a layer (sender ``EVERYONE``): each link carries its channels, once for each
      receiving device; a link from or to owners carries each owner's rows.
    - ``gradient`` of what travels, from ``EVERYONE`` where consumers need disjoint channels (tail,
      input tiling): back along the same links.
    - ``gradient`` from one consuming device, under output tiling: its own consumers' part of the sum,
      to each producer of the layer.
    - ``gradient`` from the reducer, under input tiling: with respect to the layer's own map (before
      the operations behind it), to the other hosts of the layer.
    - ``stem_weights``, ``tail_weights`` from the coordinator: to each owner of the batch.

    All else goes from one party to another as it is.
    """

    def __init__(self, topology: Topology) -> None:
        self._names = topology.owners
        self._links = Links(topology.layers, topology.slices)
        self._owners: Int64[Tensor, " rows"] | None = None
        self._groups: dict[Party, tuple[Int64[Tensor, " n"], int]] = {}

    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Who owns each row of this step's batch."""
        self._group(owners)

    def cut(
        self, message: Message, owners: Int64[Tensor, " rows"], seat: Seat
    ) -> Iterable[Message]:
        """The messages that a seat sees of this one."""
        self._group(owners)
        kept: dict[tuple[int, tuple[int, ...] | None], Tensor] = {}
        for route in self._routes(message):
            if not seat.sees(route.sender, route.receiver):
                continue
            rows = message.rows if route.rows is None else route.rows
            key = (id(route.rows), route.units)  # the groups keep their tensors alive
            if key not in kept:
                kept[key] = _part(message, route)
            yield replace(
                message,
                sender=route.sender,
                receiver=route.receiver,
                units=message.units if route.units is None else route.units,
                payload=kept[key],
                rows=rows,
            )

    def nbytes(self, message: Message) -> int:
        """Bytes of all of them on the wire, headers included."""
        whole, batch = message.payload.numel() * message.payload.element_size(), len(message.rows)
        total = 0
        for route in self._routes(message):
            part = whole
            if route.rows is not None:
                part = part * route.count // batch
            if route.units is not None:
                part = part * len(route.units) // message.payload.shape[1]
            total += HEADER_BYTES + part
        return total

    def _group(self, owners: Int64[Tensor, " rows"]) -> None:
        """Rows of each owner that is in the batch."""
        if owners is self._owners:
            return
        self._owners = owners
        groups = {k: (owners == k).nonzero().flatten() for k in torch.unique(owners).tolist()}
        self._groups = {self._names[k]: (rows, len(rows)) for k, rows in groups.items()}

    def _routes(self, message: Message) -> Iterator[_Route]:
        if message.receiver != EVERYONE:
            yield _Route(message.sender, message.receiver, None, None)
        elif message.kind in ("stem_weights", "tail_weights"):
            for owner in self._groups:
                yield _Route(message.sender, owner, None, None)
        elif message.kind == "activation":
            for link in self._links.links(message.layer):
                yield from self._along(link.sender, link.receiver, link)
        elif message.sender != EVERYONE and self._links.tiled(message.layer) == "input":
            for host in self._links.hosts(message.layer):
                if host != message.sender:
                    yield _Route(message.sender, host, None, None)
        else:
            for link in self._links.links(message.layer):
                if message.sender in (EVERYONE, link.receiver):
                    yield from self._along(link.receiver, link.sender, link)

    def _along(self, sender: Party, receiver: Party, link: Link) -> Iterator[_Route]:
        """One direction of a link: one message, or one for each owner at its open end."""
        if OWNER not in (sender, receiver):
            yield _Route(sender, receiver, link.units, None)
            return
        for owner, (rows, count) in self._groups.items():
            start = owner if sender == OWNER else sender
            end = owner if receiver == OWNER else receiver
            if start != end:
                yield _Route(start, end, link.units, rows, count)


def _part(message: Message, route: _Route) -> Tensor:
    payload = message.payload
    if route.rows is not None and len(route.rows) < len(payload):
        payload = payload[route.rows.to(payload.device)]
    if route.units is not None and len(route.units) < payload.shape[1]:
        payload = payload[:, list(route.units)]
    return payload
