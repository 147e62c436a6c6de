"""Messages of a crowd of several replicas: each passes along the links of its own replica."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Message, Seat, Slice, Topology, no_rows
from privbench.slicenet.router import CrowdRouter
from privbench.wire.router import EVERYONE, Router
from privbench.wire.wire import Wire

_AT = "@"
"""Between a starred receiver and the number of the replica whose links the message takes."""


class ReplicaRouter(Router):
    """Cuts what a crowd of several replicas sends whole: a message by its own replica's links.

    A starred receiver ends in ``@`` and the number of the replica, which fixes the links and the
    rows: those whose owners are devices of that replica. Broadcasts go to all owners of a batch.
    """

    def __init__(self, topology: Topology) -> None:
        self._parts = [CrowdRouter(part) for part in parts_of(topology)]
        self._replica_of = replica_of_owners(topology)
        self._owners: Int64[Tensor, " rows"] | None = None
        self._rows: list[Int64[Tensor, " _n"]] = []
        self._some: tuple[Tensor, Tensor, Tensor] | None = None
        self._local: list[Int64[Tensor, " _n"]] = []

    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Who owns each row of this step's batch."""
        self._deal(step, owners)

    def cut(
        self, message: Message, owners: Int64[Tensor, " rows"], seat: Seat
    ) -> Iterable[Message]:
        """The messages that a seat sees of this one."""
        self._deal(message.step, owners)
        if not message.receiver.startswith(EVERYONE):
            if seat.sees(message.sender, message.receiver):
                yield message
            return
        for number, part in self._along(message):
            local, rows = self._local[number], self._rows[number]
            if part[1] is not message and len(message.rows) < len(rows):  # others are not recorded
                local, rows = self._recorded(message, owners), message.rows
            for each in part[0].cut(part[1], local, seat):
                yield replace(each, rows=rows[each.rows] if len(each.rows) else each.rows)

    def _recorded(self, message: Message, owners: Int64[Tensor, " rows"]) -> Int64[Tensor, " n"]:
        """Owners of a message's rows; one tensor for all messages that hold the same rows."""
        last = self._some
        if last is None or last[0] is not owners or not torch.equal(last[1], message.rows):
            last = self._some = owners, message.rows, owners[message.rows]
        return last[2]

    def nbytes(self, message: Message) -> int:
        """Bytes of all of them on the wire, headers included."""
        if not message.receiver.startswith(EVERYONE):
            return message.nbytes
        return sum(part.nbytes(local) for _, (part, local) in self._along(message))

    def _along(self, message: Message) -> Iterator[tuple[int, tuple[CrowdRouter, Message]]]:
        """The replicas that a whole message concerns, and what each has to cut."""
        receiver, _, named = message.receiver.partition(_AT)
        if named:
            rows = torch.arange(len(message.rows))
            local = replace(message, receiver=receiver, rows=rows)
            yield int(named), (self._parts[int(named)], local)
            return
        for number, rows in enumerate(self._rows):
            if len(rows):
                yield number, (self._parts[number], message)

    def _deal(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Rows of each replica."""
        if owners is self._owners:
            return
        self._owners = owners
        there = self._replica_of[owners]
        self._rows = [(there == n).nonzero().flatten() for n in range(len(self._parts))]
        self._local = [owners[rows] for rows in self._rows]
        for part, local in zip(self._parts, self._local, strict=True):
            if len(local):
                part.begin(step, local)


def parts_of(topology: Topology) -> list[Topology]:
    """For each replica the topology in which it alone hosts slices."""
    place = {party: n for n, group in enumerate(topology.replicas) for party in group}
    slices: list[list[Slice]] = [[] for _ in topology.replicas]
    for piece in topology.slices:
        slices[place[piece.party]].append(piece)
    return [replace(topology, slices=tuple(mine), replicas=()) for mine in slices]


def replica_of_owners(topology: Topology) -> Int64[Tensor, " owners"]:
    """Number of each owner's replica."""
    place = {party: n for n, group in enumerate(topology.replicas) for party in group}
    return torch.tensor([place[owner] for owner in topology.owners])


class Line(Wire):
    """The wire as one replica sees it: rows are counted within its part of the batch."""

    def __init__(self, wire: Wire, number: int) -> None:
        super().__init__()
        self._wire, self._number = wire, number
        self.rows = no_rows()

    def open(self, topology: Topology, router: Router | None = None) -> None:
        """The crowd has opened it."""

    def wants(self, step: int, kind: str) -> bool:
        return self._wire.wants(step, kind)

    def count(self, kind: str, nbytes: int) -> None:
        self._wire.count(kind, nbytes)

    def send(self, message: Message) -> Message:
        """Told in rows of the batch; the receiver of a whole message names the replica."""
        end = message.receiver
        receiver = f"{end}{_AT}{self._number}" if end.startswith(EVERYONE) else end
        rows = self.rows[message.rows] if len(message.rows) else message.rows
        return self._wire.send(replace(message, receiver=receiver, rows=rows))
