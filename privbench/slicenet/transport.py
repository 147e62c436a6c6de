"""How messages get from party to party: within a process, or between processes by torch.distributed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import prod
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from privbench.contract import Message, Party
from privbench.slicenet.schedule import Envelope
from privbench.wire.codec import decode, encode

FIRST = 60.0  # seconds to wait in the first step at least: processes still load libraries then


class Listener(Protocol):
    """Hears each message that a party of this process sends."""

    def take(self, number: int, message: Message) -> None:
        """Message ``number`` of the run; numbers are the same in all processes."""


@dataclass(frozen=True, eq=False)
class Delivery:
    """A message that has arrived, and its envelope."""

    envelope: Envelope
    message: Message


class Transport(ABC):
    """Carries the messages of a phase. The tap sits here: whoever sends is heard by ``listener``.

    Args:
        listener: hears what is sent.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._sent = 0  # by all processes

    def carry(
        self, step: int, envelopes: Sequence[Envelope], payloads: Sequence[Tensor | None]
    ) -> list[Delivery]:
        """Send what this process' parties send, and receive what they are sent.

        Args:
            step: number.
            envelopes: of all parties, in the same order in every process.
            payloads: for each; None where the sender lives in another process.

        Returns:
            what came for the parties of this process, in the order of the envelopes.
        """
        messages: list[Message | None] = []
        for place, (envelope, payload) in enumerate(zip(envelopes, payloads, strict=True)):
            message = None
            if payload is not None:
                message = envelope.message(step, payload.detach())
                self._listener.take(self._sent + place, message)
            messages.append(message)
        self._sent += len(envelopes)
        return self._delivered(step, envelopes, messages)

    @abstractmethod
    def _delivered(
        self, step: int, envelopes: Sequence[Envelope], messages: Sequence[Message | None]
    ) -> list[Delivery]:
        """Carry them."""


class Mail(Transport):
    """All parties live in one process, and their messages become bytes in between.

    Args:
        listener: hears what is sent.
        encoded: steps whose messages go through bytes; later ones are copied, which is quicker.
    """

    def __init__(self, listener: Listener, encoded: int | None = None) -> None:
        super().__init__(listener)
        self._encoded = encoded

    def _delivered(
        self, step: int, envelopes: Sequence[Envelope], messages: Sequence[Message | None]
    ) -> list[Delivery]:
        found = []
        for envelope, message in zip(envelopes, messages, strict=True):
            if message is not None:
                found.append(Delivery(envelope, self._passed(step, envelope, message)))
        return found

    def _passed(self, step: int, envelope: Envelope, message: Message) -> Message:
        if self._encoded is None or step < self._encoded:
            passed: Message = decode(encode(message))
            return passed
        return envelope.message(step, message.payload.clone())


class Gloo(Transport):
    """Parties live in processes that torch.distributed has joined; messages between two processes go in
    one tensor a phase, whose layout both derive from the envelopes.

    All receives of a phase are posted before its sends are waited for, so no order of processes can
    lock up.

    Args:
        listener: hears what is sent.
        home: rank of the process in which each party lives.
        rank: of this process.
        dtype: of all payloads but labels, which have a phase of their own.
        patience: to wait for another process, in seconds.
    """

    def __init__(
        self,
        listener: Listener,
        home: Mapping[Party, int],
        rank: int,
        dtype: torch.dtype,
        patience: float,
    ) -> None:
        super().__init__(listener)
        self._home, self._rank, self._dtype = home, rank, dtype
        self._patience = patience

    def _delivered(
        self, step: int, envelopes: Sequence[Envelope], messages: Sequence[Message | None]
    ) -> list[Delivery]:
        outgoing: defaultdict[int, list[Tensor]] = defaultdict(list)
        incoming: defaultdict[int, int] = defaultdict(int)
        for envelope, message in zip(envelopes, messages, strict=True):
            sender, receiver = self._home[envelope.sender], self._home[envelope.receiver]
            if message is not None and receiver != self._rank:
                outgoing[receiver].append(message.payload.reshape(-1))
            elif message is None and receiver == self._rank:
                incoming[sender] += prod(envelope.shape)
        dtype = self._type(envelopes)
        boxes = {r: torch.empty(n, dtype=dtype) for r, n in sorted(incoming.items()) if n}
        under_way = [dist.irecv(box, src=rank) for rank, box in boxes.items()]
        for rank, flat in sorted(outgoing.items()):
            packed = torch.cat(flat)
            if len(packed):
                under_way.append(dist.isend(packed, dst=rank))
        patience = self._patience if step else max(self._patience, FIRST)
        for each in under_way:
            if each is not None:
                each.wait(timedelta(seconds=patience))
        return self._unpacked(step, envelopes, messages, boxes)

    def _type(self, envelopes: Sequence[Envelope]) -> torch.dtype:
        """Of all numbers of a phase."""
        whole = any(envelope.whole_numbers for envelope in envelopes)
        return torch.int64 if whole else self._dtype

    def _unpacked(
        self,
        step: int,
        envelopes: Sequence[Envelope],
        messages: Sequence[Message | None],
        boxes: Mapping[int, Tensor],
    ) -> list[Delivery]:
        read: defaultdict[int, int] = defaultdict(int)
        found = []
        for envelope, message in zip(envelopes, messages, strict=True):
            if self._home[envelope.receiver] != self._rank:
                continue
            if message is None:
                rank, size = self._home[envelope.sender], prod(envelope.shape)
                start = read[rank]
                read[rank] += size
                box = boxes.get(rank, torch.empty(0, dtype=self._type(envelopes)))
                payload = box[start : start + size].view(envelope.shape)
            else:
                payload = message.payload.clone()
            found.append(Delivery(envelope, envelope.message(step, payload)))
        return found
