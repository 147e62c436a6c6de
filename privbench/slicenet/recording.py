"""What one process hears, on disk as it goes: readable to the last whole step, whatever happens to it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from privbench.contract import Message
from privbench.slicenet.schedule import Part
from privbench.wire import codec

LENGTH = 8  # bytes before each frame that say how long it is

IN_FORCE = "in_force"
"""What parties hold in a step, among the kinds of message that somebody keeps."""


@dataclass(frozen=True, eq=False)
class Frame:
    """What a process heard in one step.

    Args:
        step: number.
        numbers: of its messages in the order of the whole run.
        messages: that its parties sent, as far as somebody keeps them.
        held: tensors that its parties held, by tile (or -1, the coordinator) and name.
        counts: bytes of other messages, by kind.
        loss: its owners' part of the batch's mean loss.
    """

    step: int
    numbers: tuple[int, ...]
    messages: tuple[Message, ...]
    held: Mapping[str, Tensor]
    counts: Mapping[str, int]
    loss: float


class Log:
    """Listens to one process, and watches the weights that it holds.

    Args:
        path: of its file.
        kept: for each kind of message, and for what parties hold (``IN_FORCE``), a flag a step: does
            somebody keep it?
    """

    def __init__(self, path: Path, kept: Mapping[str, Tensor]) -> None:
        self._file = path.open("wb")
        self._kept = kept
        self._numbers: list[int] = []
        self._messages: list[Message] = []
        self._held: dict[str, Tensor] = {}
        self._counts: Counter[str] = Counter()

    def take(self, number: int, message: Message) -> None:
        """Keep a message, or count its bytes."""
        if self._keeps(message.step, message.kind):
            self._numbers.append(number)
            self._messages.append(message)
        else:
            self._counts[message.kind] += message.nbytes

    def wants(self, step: int) -> bool:
        """Does somebody keep the weights in force?"""
        return self._keeps(step, IN_FORCE)

    def hold(self, step: int, parts: Sequence[tuple[Part, Tensor]]) -> None:
        """Keep them."""
        for part, tensor in parts:
            self._held[f"{-1 if part.piece is None else part.piece}/{part.name}"] = tensor

    def end(self, step: int, loss: float) -> None:
        """Write what was heard in a step."""
        fields = (
            step, tuple(self._numbers), tuple(self._messages), self._held, dict(self._counts), loss,
        )  # fmt: skip
        data = codec.encode(fields)
        self._file.write(len(data).to_bytes(LENGTH, "little"))
        self._file.write(data)
        self._file.flush()  # what the system has outlives the process
        self._numbers, self._messages, self._held = [], [], {}
        self._counts.clear()

    def close(self) -> None:
        """No more steps."""
        self._file.close()

    def _keeps(self, step: int, kind: str) -> bool:
        flags = self._kept.get(kind)
        return flags is not None and bool(flags[step])


def frames(path: Path) -> Iterator[Frame]:
    """Whole frames of a file, in order; one that was cut short ends them."""
    if not path.exists():
        return
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        while file.tell() + LENGTH <= end:
            size = int.from_bytes(file.read(LENGTH), "little")
            if file.tell() + size > end:
                return
            yield Frame(*codec.decode(file.read(size)))


@dataclass(frozen=True, eq=False)
class Heard:
    """What all processes heard in one step.

    Args:
        messages: in the order of the run.
        held: as in ``Frame``.
        counts: bytes of messages that nobody keeps, by kind.
        loss: of the batch.
    """

    step: int
    messages: tuple[Message, ...]
    held: Mapping[str, Tensor]
    counts: Mapping[str, int]
    loss: Tensor


def merged(paths: Sequence[Path]) -> Iterator[Heard]:
    """Steps that all processes have written to the end."""
    for found in zip(*(frames(path) for path in paths), strict=False):
        pairs = [p for frame in found for p in zip(frame.numbers, frame.messages, strict=True)]
        counts: Counter[str] = Counter()
        held: dict[str, Tensor] = {}
        for frame in found:
            counts.update(frame.counts)
            held |= frame.held
        loss = torch.tensor(sum(frame.loss for frame in found), dtype=torch.float64)
        ordered = sorted(pairs, key=lambda pair: pair[0])
        yield Heard(found[0].step, tuple(m for _, m in ordered), held, counts, loss)
