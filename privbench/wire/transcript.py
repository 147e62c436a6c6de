"""The ordered messages of a run, read back from disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        self._router: Router = kind() if kind is Direct else kind(self.topology)

    @cached_property
    def messages(self) -> tuple[Message, ...]:
        """Everything recorded, in order, as the regime sent it (layers whole)."""
        chunks = sorted(self.folder.glob("chunk-*"))
        return tuple(message for chunk in chunks for message in codec.load(chunk))

    @cached_property
    def owners(self) -> dict[int, Int64[Tensor, " rows"]]:
        """For each step, the number of each row's owner in ``topology.owners``."""
        return {int(step): owners for step, owners in load_file(self.folder / "owners").items()}

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps of which anything was recorded."""
        return tuple(sorted({message.step for message in self.messages}))

    def seen_by(self, seat: Seat, steps: Sequence[int], kinds: Sequence[str]) -> Iterator[Message]:
        """Messages, from party to party, that pass by a seat at these steps."""
        wanted, chosen = frozenset(steps), frozenset(kinds)
        for message in self.messages:
            if message.step in wanted and message.kind in chosen:
                yield from self._router.cut(message, self.owners[message.step], seat)

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
