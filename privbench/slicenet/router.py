"""From whole layers to what devices send each other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import HEADER_BYTES, OWNERS, ROW_KINDS, Message, Party, Seat, Topology
from privbench.errors import StorageError
from privbench.slicenet.derive import FLOW, MAP, PARTS, Bare, Step
from privbench.slicenet.links import OWNER, Link, Links
from privbench.slicenet.tally import Tally
from privbench.wire.capture import halved
from privbench.wire.router import EVERYONE, Kept, Router

CO_HOSTS = "*sum"
"""Receiver of a gradient that a reducer sends to those who added to its block."""

PLANS = 64  # of who hosts what, kept for later steps: more only where devices fail often


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

    Whole messages have a starred receiver:

    - ``activation`` of a layer, from and to ``EVERYONE``: each link carries its channels, once for
      each receiving device; a link from or to owners carries each owner's rows.
    - ``gradient`` of a layer's channels, from one device, or from ``OWNER`` for the tails of all
      owners, to ``EVERYONE``: its own consumers' part of the sum, to each maker of these channels.
    - ``gradient`` of a block's sum, from its reducer to ``CO_HOSTS``: with respect to the map
      (before the operations behind it), to the other hosts of the block.
    - ``stem_weights``, ``tail_weights`` from the coordinator to ``EVERYONE``: to each owner of the
      batch.
    - ``labels`` from and to ``EVERYONE``: each owner's to whoever computes the loss.

    - ``gradient`` of a layer's channels and ``partial_sum`` of a layer, to ``PARTS``: what each host
      sends is derived from what was laid by in the same step; that itself is nobody's message.

    A message from ``OWNERS`` is the sum of what each owner of the step sent under a mask: its
    receiver alone sees it, no link carries it. All else goes from one party to another as it is.
    """

    def __init__(self, topology: Topology) -> None:
        self._names = topology.owners
        self._topology, self._changes = topology, topology.changes()
        self._plans: dict[int, tuple[Links, Tally]] = {}
        self.links, self.tally = self._plan(0)
        self._owners: Int64[Tensor, " rows"] | None = None
        self._groups: dict[Party, tuple[Int64[Tensor, " _n"], int]] = {}
        self._kept: Callable[[int], Kept] | None = None
        self._bare = Bare(topology.net, topology.layers)
        self._last: tuple[int, Step] | None = None
        self._some: tuple[Tensor, Tensor, Tensor] | None = None

    def reads(self, kept: Callable[[int], Kept]) -> None:
        """Derive what was not recorded."""
        self._kept = kept

    @property
    def rows(self) -> dict[Party, int]:
        """Rows of each owner of this step's batch."""
        return {owner: count for owner, (_, count) in self._groups.items()}

    def groups(self) -> Iterator[tuple[Party, Int64[Tensor, " n"]]]:
        """Each owner of this step's batch, with its rows."""
        for owner, (rows, _) in self._groups.items():
            yield owner, rows

    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Who owns each row of this step's batch, and who hosts what."""
        self.links, self.tally = self._plan(step)
        self._group(owners)

    def cut(
        self, message: Message, owners: Int64[Tensor, " rows"], seat: Seat
    ) -> Iterable[Message]:
        """The messages that a seat sees of this one."""
        self.begin(message.step, self._of_rows(message, owners))
        near = (
            None if seat.everything else {*seat.parties, *(p for ends in seat.links for p in ends)}
        )
        if message.receiver == PARTS:
            derive = self._sums if message.kind == "partial_sum" else self._gradients
            return derive(message, seat, near)
        if message.receiver in (MAP, FLOW):
            return ()
        if message.sender == OWNERS and message.receiver not in seat.parties:
            return ()
        routes = self._routes(message, near)
        return _cut(message, [r for r in routes if seat.sees(r.sender, r.receiver)])

    def _of_rows(self, message: Message, owners: Int64[Tensor, " rows"]) -> Int64[Tensor, " some"]:
        """Owners of a whole message's rows, where it has not all of the step."""
        rows = message.rows
        if message.kind not in ROW_KINDS or "*" not in message.receiver or len(rows) == len(owners):
            return owners
        if (
            self._some is None
            or self._some[0] is not owners
            or not torch.equal(self._some[1], rows)
        ):
            self._some = owners, rows, owners[rows]
        return self._some[2]

    def _gradients(
        self, message: Message, seat: Seat, near: Collection[Party] | None
    ) -> Iterator[Message]:
        """Each host's part of the gradient of a layer."""
        links = self.links.links(message.layer, near=_open(near))
        for party, own in groupby(links, key=lambda link: link.receiver):
            if party == OWNER:
                continue
            every = (r for link in own for r in self._along(party, link.sender, link, near))
            routes = [route for route in every if seat.sees(route.sender, route.receiver)]
            if routes:
                part = self._step(message.step).gradient(message.layer, party)
                units = tuple(range(part.shape[1]))
                yield from _cut(self._derived(message, units, part), routes)

    def _sums(
        self, message: Message, seat: Seat, near: Collection[Party] | None
    ) -> Iterator[Message]:
        """Each host's partial sums."""
        for each in self.links.sums(message.layer):
            for host in each.others:
                if seat.sees(host, each.reducer):
                    part = self._step(message.step).partial_sum(message.layer, host, each.units)
                    route = _Route(host, each.reducer, None, None)
                    yield from _cut(self._derived(message, each.units, part), [route])

    def _derived(self, message: Message, units: tuple[int, ...], payload: Tensor) -> Message:
        """In 16 bits where the recording keeps what it is derived from in 16 bits."""
        found = replace(message, units=units, payload=payload)
        return halved(found) if self._step(message.step).half else found

    def _step(self, number: int) -> Step:
        """What a step's messages are derived from; built anew for another step."""
        if self._kept is None:
            raise StorageError(
                "a message is derived from others of its step, but nobody gave the recording; expected "
                "a router that a Transcript has opened"
            )
        if self._last is None or self._last[0] != number:
            self._last = (number, Step(self._bare, self.links, self._kept(number)))
        return self._last[1]

    def nbytes(self, message: Message) -> int:
        """Bytes of all of them on the wire, headers included."""
        element = message.payload.element_size()
        if message.kind == "activation" and message.receiver == EVERYONE:
            return self.tally.layer(message.layer, self.rows, element)
        if message.kind == "gradient" and message.sender == OWNER:
            return self.tally.owners(message.layer, self.rows, element)
        whole, batch = message.payload.numel() * element, len(message.rows)
        total = 0
        for route in self._routes(message):
            part = whole
            if route.rows is not None:
                part = part * route.count // batch
            if route.units is not None:
                part = part * len(route.units) // message.payload.shape[1]
            total += HEADER_BYTES + part
        return total

    def _plan(self, step: int) -> tuple[Links, Tally]:
        """Links and their bytes in a step; built anew only where slices changed hands."""
        change = bisect_right(self._changes, step)
        if change not in self._plans:
            if len(self._plans) == PLANS:
                del self._plans[next(iter(self._plans))]
            links = Links(self._topology.layers, self._topology.slices_at(step))
            self._plans[change] = links, Tally(links)
        return self._plans[change]

    def _group(self, owners: Int64[Tensor, " rows"]) -> None:
        """Rows of each owner that is in the batch."""
        if owners is self._owners:
            return
        self._owners = owners
        order = torch.argsort(owners, stable=True)
        present, counts = torch.unique_consecutive(owners[order], return_counts=True)
        groups = order.split(counts.tolist())
        self._groups = {
            self._names[k]: (rows, len(rows))
            for k, rows in zip(present.tolist(), groups, strict=True)
        }

    def _routes(self, message: Message, near: Collection[Party] | None = None) -> Iterator[_Route]:
        """What a whole message stands for; at least all of it that begins or ends near some parties."""
        if not message.receiver.startswith("*"):
            yield _Route(message.sender, message.receiver, None, None)
        elif message.kind in ("stem_weights", "tail_weights"):
            for owner in self._groups:
                yield _Route(message.sender, owner, None, None)
        elif message.kind == "labels":
            scorer = self.links.scorer
            for owner, (rows, count) in self._groups.items():
                if scorer is not None and owner != scorer:
                    yield _Route(owner, scorer, None, rows, count)
        elif message.receiver == CO_HOSTS:
            for each in self.links.sums(message.layer):
                if each.units == message.units and each.reducer == message.sender:
                    for host in each.others:
                        yield _Route(message.sender, host, None, None)
        elif message.kind == "activation":
            for link in self.links.links(message.layer, near=_open(near)):
                yield from self._along(link.sender, link.receiver, link, near)
        else:
            for link in self.links.links(message.layer, message.sender, _open(near)):
                yield from self._along(link.receiver, link.sender, link, near)

    def _along(
        self, sender: Party, receiver: Party, link: Link, near: Collection[Party] | None
    ) -> Iterator[_Route]:
        """One direction of a link: one message, or one for each owner at its open end."""
        if OWNER not in (sender, receiver):
            yield _Route(sender, receiver, link.units, None)
            return
        other = receiver if sender == OWNER else sender
        for owner, (rows, count) in self._groups.items():
            if owner != other and (near is None or other in near or owner in near):
                start = owner if sender == OWNER else sender
                end = owner if receiver == OWNER else receiver
                yield _Route(start, end, link.units, rows, count)


def _open(near: Collection[Party] | None) -> Collection[Party] | None:
    """Some of the parties may be owners, so the open end of a link is near too."""
    return None if near is None else {*near, OWNER}


def _cut(message: Message, routes: Sequence[_Route]) -> Iterator[Message]:
    """The parts of a whole message that go along these routes; equal ones share their numbers."""
    kept: dict[tuple[int, tuple[int, ...] | None], Tensor] = {}
    places = {unit: place for place, unit in enumerate(message.units or ())}
    for route in routes:
        rows = message.rows if route.rows is None else message.rows[route.rows]
        key = (id(route.rows), route.units)  # the groups keep their tensors alive
        if key not in kept:
            kept[key] = _part(message, route, places)
        yield replace(
            message,
            sender=route.sender,
            receiver=route.receiver,
            units=message.units if route.units is None else route.units,
            payload=kept[key],
            rows=rows,
        )


def _part(message: Message, route: _Route, places: dict[int, int]) -> Tensor:
    payload = message.payload
    if route.rows is not None and len(route.rows) < len(payload):
        payload = payload[route.rows.to(payload.device)]
    if route.units is not None and len(route.units) < payload.shape[1]:
        payload = payload[:, [places[unit] for unit in route.units]]
    return payload
