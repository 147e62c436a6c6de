"""Taps: who listens on the wire, and what they keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Int64
from torch import Tensor

from privbench.contract import ROW_KINDS, Message, Topology
from privbench.errors import UsageError
from privbench.wire import codec
from privbench.wire.router import Router

OWNED, STATE, LENT = "owners-", "state-", "lent-"
"""Beginnings of the names of files that hold owners, parameters of seats, and parameters of none."""

OWNERS = 1000  # steps whose owners go into one file
WAITING = 4  # files


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
    """Listens on a wire. Draws no random numbers and changes nothing.

    ``derives`` says that it can do without messages which follow from others of the same step and the
    parameters in force (see ``Wire.derives``).
    """

    derives: ClassVar[bool] = False

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

    def lend(self, step: int, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - most need it not
        """Parameters in force, for a tap that derives: live, and its own until ``give_back``."""

    def give_back(self) -> None:  # noqa: B027 - who was lent nothing has nothing to give back
        """What was lent is about to be overwritten."""

    @abstractmethod
    def close(self) -> None:
        """Training is over."""


class Recorder(Tap):
    """Streams what it keeps to a folder, in chunks, so that memory stays bounded.

    A thread of its own writes, so that training need not wait for the disk unless the disk is slower
    than training. Payloads are kept as they are until they are written: nobody may overwrite them.

    Args:
        folder: an empty folder of its own.
        capture: what is kept.
        chunk_bytes: a chunk is written when it holds this much.
    """

    derives: ClassVar[bool] = True

    def __init__(self, folder: Path, capture: Capture, chunk_bytes: int = 8 << 20) -> None:
        self.folder = folder
        self.capture = capture
        self.chunk_bytes = chunk_bytes
        self._topology: Topology | None = None
        self._pending: list[Message] = []
        self._size = 0
        self._steps: list[tuple[int, ...]] = []  # of each chunk that is written
        self._owners: dict[str, Tensor] = {}
        self._owner_files = 0
        self._held = -1  # the last step whose parameters were kept
        self._lent: Future[None] | None = None
        self._disk = _Disk()

    def open(self, topology: Topology, router: Router) -> None:
        """Note who takes part and how whole messages are cut."""
        self._topology = topology
        kind = type(router)
        codec.save((topology, f"{kind.__module__}.{kind.__qualname__}"), self.folder / "parties")

    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Note the owners of a step's rows."""
        self._owners[str(step)] = owners.clone()
        if len(self._owners) == OWNERS:
            self._write_owners()

    def keeps(self, step: int, kind: str) -> bool:
        """As the capture policy says."""
        return self._topology is not None and self.capture.keeps(step, kind, self._topology)

    def take(self, message: Message) -> None:
        """Keep a message, and write a chunk when enough have come together."""
        if not self.keeps(message.step, message.kind):
            return
        self._pending.append(message)
        self._size += message.nbytes
        if self._size >= self.chunk_bytes:
            self._flush()

    def hold(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Keep the weights in force where parameter tensors are kept."""
        if self.keeps(step, "slice_weights"):
            self._held = step
            self._keep(f"{STATE}{step}", state)

    def lend(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Keep what messages are derived from, unless it is kept for the seats already."""
        if step != self._held and self.keeps(step, "gradient"):
            self._lent = self._disk.does(codec.save, dict(state), self.folder / f"{LENT}{step}")

    def give_back(self) -> None:
        """Be done with what was lent; it is written while the step is computed, so nobody waits long."""
        if self._lent is not None:
            self._lent.result()
        self._lent = None

    def close(self) -> None:
        """Write what is left.

        Raises:
            StorageError: something could not be written, now or earlier.
        """
        self._flush()
        self._write_owners()
        self._disk.close()
        codec.save(tuple(self._steps), self.folder / "index")

    def _keep(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Write a copy: the optimiser is about to change what it was given."""
        held = {key: tensor.detach().to("cpu", copy=True) for key, tensor in state.items()}
        self._disk.does(codec.save, held, self.folder / name)

    def _write_owners(self) -> None:
        path = self.folder / f"{OWNED}{self._owner_files:05d}"
        self._disk.does(codec.save, self._owners, path)
        self._owners, self._owner_files = {}, self._owner_files + 1

    def _flush(self) -> None:
        if self._pending:
            path = self.folder / f"chunk-{len(self._steps):05d}"
            self._disk.does(codec.save, tuple(self._pending), path)
            self._steps.append(tuple(sorted({message.step for message in self._pending})))
        self._pending, self._size = [], 0


class _Disk:
    """One thread that writes in order; at most ``WAITING`` files wait for it."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[None]] = deque()

    def does(self, write: Callable[..., None], *what: Any) -> Future[None]:
        """Have something written, and wait while too much is.

        Raises:
            StorageError: an earlier one could not be.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "recorder")
        written = self._thread.submit(write, *what)
        self._waiting.append(written)
        while len(self._waiting) > WAITING or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        return written

    def close(self) -> None:
        """Wait for all of it.

        Raises:
            StorageError: some of it could not be written.
        """
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        while self._waiting:
            self._waiting.popleft().result()
