"""Taps: who listens on the wire, and what they keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int64
from safetensors.torch import save_file
from torch import Tensor

from privbench.contract import ROW_KINDS, Message, Topology
from privbench.errors import UsageError
from privbench.wire import codec
from privbench.wire.router import Router


@dataclass(frozen=True, kw_only=True)
class Capture:
    """What a recording keeps.

    Messages with rows are kept at every ``every``-th step. Parameter tensors (updates, stem
    gradients, broadcasts, and the weights in force) are large: they are kept at the first ``first``
    steps and at those of the last epoch.
    """

    every: int = 1  # steps between recorded ones
    first: int = 8  # steps, from the start, whose parameter tensors are kept
    last: bool = True  # keep those of the last epoch too

    def __post_init__(self) -> None:
        for name, least in (("every", 1), ("first", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UsageError(
                    f"capture.{name}={value}; expected a whole number, at least {least}"
                )

    def keeps(self, step: int, kind: str, topology: Topology) -> bool:
        """Is a message of this kind kept at this step?"""
        if kind in ROW_KINDS:
            return step % self.every == 0
        late = self.last and step >= topology.steps - topology.steps_per_epoch
        return step < self.first or late


class Tap(ABC):
    """Listens on a wire. Draws no random numbers and changes nothing."""

    @abstractmethod
    def open(self, topology: Topology, router: Router) -> None:
        """Training starts."""

    @abstractmethod
    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """A step starts; who owns its rows."""

    @abstractmethod
    def keeps(self, step: int, kind: str) -> bool:
        """Would it keep a message of this kind at this step?"""

    @abstractmethod
    def take(self, message: Message) -> None:
        """A message passes."""

    @abstractmethod
    def hold(self, step: int, state: Mapping[str, Tensor]) -> None:
        """The network's parameters in force during this step."""

    @abstractmethod
    def close(self) -> None:
        """Training is over."""


class Recorder(Tap):
    """Streams what it keeps to a folder, in chunks, so that memory stays bounded.

    Args:
        folder: an empty folder of its own.
        capture: what is kept.
        chunk_bytes: a chunk is written when it holds this much.
    """

    def __init__(self, folder: Path, capture: Capture, chunk_bytes: int = 8 << 20) -> None:
        self.folder = folder
        self.capture = capture
        self.chunk_bytes = chunk_bytes
        self._topology: Topology | None = None
        self._pending: list[Message] = []
        self._size = 0
        self._steps: list[tuple[int, ...]] = []  # of each chunk that is written
        self._owners: dict[str, Tensor] = {}
        self._states: dict[str, Tensor] = {}

    def open(self, topology: Topology, router: Router) -> None:
        """Note who takes part and how whole messages are cut."""
        self._topology = topology
        kind = type(router)
        codec.save((topology, f"{kind.__module__}.{kind.__qualname__}"), self.folder / "parties")

    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Note the owners of a step's rows."""
        self._owners[str(step)] = owners.clone()

    def keeps(self, step: int, kind: str) -> bool:
        """As the capture policy says."""
        return self._topology is not None and self.capture.keeps(step, kind, self._topology)

    def take(self, message: Message) -> None:
        """Keep a copy, and write a chunk when enough have come together."""
        if not self.keeps(message.step, message.kind):
            return
        self._pending.append(message)
        self._size += message.nbytes
        if self._size >= self.chunk_bytes:
            self._flush()

    def hold(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Keep the weights in force where parameter tensors are kept."""
        if self.keeps(step, "slice_weights"):
            for name, tensor in state.items():
                self._states[f"{step}/{name}"] = tensor.detach().to("cpu", copy=True)

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        codec.save(tuple(self._steps), self.folder / "index")
        save_file(self._owners, self.folder / "owners")
        save_file(self._states, self.folder / "states")

    def _flush(self) -> None:
        if self._pending:
            codec.save(tuple(self._pending), self.folder / f"chunk-{len(self._steps):05d}")
            self._steps.append(tuple(sorted({message.step for message in self._pending})))
        self._pending, self._size = [], 0
