"""The ordered messages of a run, read back from disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Message, Seat, Topology, load_name
from privbench.errors import StorageError
from privbench.wire import codec
from privbench.wire.router import Direct, Kept, Router
from privbench.wire.tap import LENT, OWNED, STATE


class Transcript:
    """What a ``Recorder`` wrote into ``folder``. Opened lazily; payloads are memory-mapped."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "parties").exists():
            raise StorageError(f"no transcript lies in '{folder}'; expected its file 'parties'")
        self.folder = folder
        self.topology: Topology
        self.topology, router = codec.load(folder / "parties")
        kind = load_name(router)
        self._last: tuple[tuple[int, ...], dict[int, tuple[Message, ...]]] | None = None
        self._router: Router = kind() if kind is Direct else kind(self.topology)
        self._router.reads(self._kept)

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
    def owners(self) -> dict[int, Int64[Tensor, " _rows"]]:
        """For each step, the number of each row's owner in ``topology.owners``."""
        files = sorted(self.folder.glob(f"{OWNED}*"))
        return {int(step): owners for file in files for step, owners in codec.load(file).items()}

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps of which anything was recorded."""
        return tuple(sorted({step for held in self._index for step in held}))

    def seen_by(
        self, seat: Seat, steps: Sequence[int], kinds: Collection[str]
    ) -> Iterator[Message]:
        """Messages, from party to party, that pass by a seat at these steps."""
        recorded = self._recorded(tuple(steps)) if kinds else {}
        for message in (message for held in recorded.values() for message in held):
            if message.kind in kinds:
                yield from self._router.cut(message, self.owners[message.step], seat)

    def _recorded(self, steps: tuple[int, ...]) -> dict[int, tuple[Message, ...]]:
        """Messages of these steps; many seats ask for the same ones in a row."""
        if self._last is None or self._last[0] != steps:
            wanted = frozenset(steps)
            found: dict[int, list[Message]] = {}
            for number, held in enumerate(self._index):
                if wanted.intersection(held):
                    for message in self._chunk(number):
                        if message.step in wanted:
                            found.setdefault(message.step, []).append(message)
            self._last = (steps, {step: tuple(messages) for step, messages in found.items()})
        return self._last[1]

    def _kept(self, step: int) -> Kept:
        """What a router may derive messages from."""
        known = {} if self._last is None else self._last[1]
        messages = known[step] if step in known else self._recorded((step,))[step]
        return Kept(messages, self.state(step) or self._parameters(LENT, step) or {})

    def _chunk(self, number: int) -> tuple[Message, ...]:
        found: tuple[Message, ...] = codec.load(self.folder / f"chunk-{number:05d}")
        return found

    def state(self, step: int) -> dict[str, Tensor] | None:
        """The network's parameters in force during a step; None where they were not kept."""
        return self._parameters(STATE, step)

    @cached_property
    def steps_with_state(self) -> tuple[int, ...]:
        """Steps whose parameters were kept."""
        names = (file.name.removeprefix(STATE) for file in self.folder.glob(f"{STATE}*"))
        return tuple(sorted(int(name) for name in names))

    def _parameters(self, beginning: str, step: int) -> dict[str, Tensor] | None:
        file = self.folder / f"{beginning}{step}"
        if not file.exists():
            return None
        found: dict[str, Tensor] = codec.load(file)
        return found
