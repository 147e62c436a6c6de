"""The ordered messages of a run, read back from disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from jaxtyping import Int64
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from privbench.contract import Message, Seat, Topology, load_name
from privbench.errors import StorageError
from privbench.wire import codec
from privbench.wire.router import Direct, Router


class Transcript:
    """What a ``Recorder`` wrote into ``folder``. Opened lazily; payloads are memory-mapped."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "parties").exists():
            raise StorageError(f"no transcript lies in '{folder}'; expected its file 'parties'")
        self.folder = folder
        self.topology: Topology
        self.topology, router = codec.load(folder / "parties")
        kind = load_name(router)
        self._last: tuple[tuple[int, ...], tuple[Message, ...]] | None = None
        self._router: Router = kind() if kind is Direct else kind(self.topology)

    @property
    def messages(self) -> Iterator[Message]:
        """Everything recorded, in order, as the regime sent it (layers whole)."""
        for number in range(len(self._index)):
            yield from self._chunk(number)

    @cached_property
    def _index(self) -> tuple[tuple[int, ...], ...]:
        """Steps of each chunk."""
        found: tuple[tuple[int, ...], ...] = codec.load(self.folder / "index")
        return found

    @cached_property
    def owners(self) -> dict[int, Int64[Tensor, " rows"]]:
        """For each step, the number of each row's owner in ``topology.owners``."""
        return {int(step): owners for step, owners in load_file(self.folder / "owners").items()}

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps of which anything was recorded."""
        return tuple(sorted({step for held in self._index for step in held}))

    def seen_by(
        self, seat: Seat, steps: Sequence[int], kinds: Collection[str]
    ) -> Iterator[Message]:
        """Messages, from party to party, that pass by a seat at these steps."""
        for message in self._recorded(tuple(steps)) if kinds else ():
            if message.kind in kinds:
                yield from self._router.cut(message, self.owners[message.step], seat)

    def _recorded(self, steps: tuple[int, ...]) -> tuple[Message, ...]:
        """Messages of these steps; many seats ask for the same ones in a row."""
        if self._last is None or self._last[0] != steps:
            wanted = frozenset(steps)
            chunks = [n for n, held in enumerate(self._index) if wanted.intersection(held)]
            found = (message for number in chunks for message in self._chunk(number))
            self._last = (steps, tuple(message for message in found if message.step in wanted))
        return self._last[1]

    def _chunk(self, number: int) -> tuple[Message, ...]:
        found: tuple[Message, ...] = codec.load(self.folder / f"chunk-{number:05d}")
        return found

    def state(self, step: int) -> dict[str, Tensor] | None:
        """The network's parameters in force during a step; None where they were not kept."""
        with safe_open(self.folder / "states", framework="pt") as file:
            found = [key for key in file.keys() if key.startswith(f"{step}/")]
            return {key.split("/", 1)[1]: file.get_tensor(key) for key in found} or None

    @cached_property
    def steps_with_state(self) -> tuple[int, ...]:
        """Steps whose parameters were kept."""
        with safe_open(self.folder / "states", framework="pt") as file:
            return tuple(sorted({int(key.split("/", 1)[0]) for key in file.keys()}))
