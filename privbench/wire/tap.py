"""Taps: who listens on the wire, and what they keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Message, Topology, no_rows
from privbench.wire import codec
from privbench.wire.capture import Capture, Policy, halved, renumbered
from privbench.wire.router import Direct, Router

OWNED, STATE, LENT = "owners-", "state-", "lent-"
"""Beginnings of the names of files that hold owners, parameters of seats, and parameters of none."""

OWNERS = 1000  # steps whose owners go into one file
WAITING = 4  # files

Chosen = Callable[[int], Int64[Tensor, " rows"]]
"""For a step that has begun: 1 for each row that is to be kept, else 0."""


class Tap(ABC):
    """Listens on a wire. Draws no random numbers and changes nothing.

    ``derives`` says that it can do without messages which follow from others of the same step and the
    parameters in force (see ``Wire.derives``).
    """

    derives: bool = False

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

    def holds(self, step: int) -> bool:
        """Would it keep the parameters in force during this step?"""
        return self.keeps(step, "slice_weights")

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
        seed: of what the capture policy draws.
        chosen: which rows are kept, where the policy keeps some members alone.
    """

    def __init__(
        self,
        folder: Path,
        capture: Capture,
        chunk_bytes: int = 8 << 20,
        seed: int = 0,
        chosen: Chosen | None = None,
    ) -> None:
        self.folder = folder
        self.capture = capture
        self.chunk_bytes = chunk_bytes
        self.derives = not capture.links  # who wants a part of the messages wants them as they were
        self.orders: dict[int, Int64[Tensor, " _rows"]] = {}  # of each step's rows, where shuffled
        self._seed, self._chosen = seed, chosen
        self._policy: Policy | None = None
        self._router: Router = Direct()
        self._step: _Step | None = None
        self._pending: list[Message] = []
        self._size = 0
        self._steps: list[tuple[int, ...]] = []  # of each chunk that is written
        self._owners: dict[str, Tensor] = {}
        self._owner_files = 0
        self._held = -1  # the last step whose parameters were kept
        self._lent: Future[None] | None = None
        self._disk = _Disk()

    def open(self, topology: Topology, router: Router) -> None:
        """Note who takes part and how whole messages are cut.

        Raises:
            UsageError: the capture policy names a link of a party that takes no part.
        """
        self._policy, self._router = Policy(self.capture, topology, self._seed), router
        kind = type(router)
        codec.save((topology, f"{kind.__module__}.{kind.__qualname__}"), self.folder / "parties")

    def begin(self, step: int, owners: Int64[Tensor, " rows"]) -> None:
        """Note the owners of a step's rows, and which of these are kept."""
        held = owners.clone()
        self._step = _Step(held)
        if self._policy is not None and self.capture.samples and self._chosen is not None:
            chosen = self._chosen(step)
            order = self._policy.order(step, chosen)
            self.orders[step], self._owners[str(step)] = order, held[order]
            self._step = _Step(held, order.argsort(), int(chosen.sum()))
        else:
            self._owners[str(step)] = held
        if len(self._owners) == OWNERS:
            self._write_owners()

    def keeps(self, step: int, kind: str) -> bool:
        """As the capture policy says."""
        return self._policy is not None and self._policy.keeps(step, kind)

    def holds(self, step: int) -> bool:
        """As the capture policy says, whatever kinds of message it keeps."""
        return self._policy is not None and self._policy.holds(step)

    def take(self, message: Message) -> None:
        """Keep a message, and write a chunk when enough have come together."""
        if self._policy is None or not self.keeps(message.step, message.kind):
            return
        step = self._step
        owners = step.owners if step is not None else no_rows()
        for each in self._policy.along(message, owners, self._router):
            kept: Message | None = each
            if step is not None and step.place is not None:
                kept = renumbered(each, step.place, step.kept)
            if kept is not None:
                self._add(halved(kept) if self.capture.half else kept)
        if self._size >= self.chunk_bytes:
            self._flush()

    def hold(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Keep the weights in force where parameter tensors are kept."""
        if self.holds(step):
            self._held = step
            self._keep(f"{STATE}{step}", state)

    def lend(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Keep what messages are derived from, unless it is kept for the seats already."""
        if step != self._held and (self.keeps(step, "gradient") or self.keeps(step, "partial_sum")):
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

    def _add(self, message: Message) -> None:
        self._pending.append(message)
        self._size += message.nbytes

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


@dataclass(frozen=True, eq=False)
class _Step:
    """The step that is being recorded.

    Args:
        owners: of its rows.
        place: new number of each row; None = they keep theirs.
        kept: rows whose new number is below it are kept.
    """

    owners: Int64[Tensor, " rows"]
    place: Int64[Tensor, " rows"] | None = None
    kept: int = 0


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
