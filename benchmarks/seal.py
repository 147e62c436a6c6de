"""What a sealed attack costs beside the same attack inline, on a view of 50 MB on the CPU.

Both decode the view from a file; the seal adds a fork, the import of the attack's module in it, and
the pages of the view that it touches. The helper has been started before.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import (
    Attack,
    Message,
    Net,
    ReconstructionGuess,
    Seat,
    Spec,
    Topology,
    View,
)
from privbench.seal import Seal

LIMIT = 0.3  # seconds more than inline, promised
_HERE = "seal" if __name__ == "__main__" else __name__  # how a sealed child imports this file


@dataclass(frozen=True, kw_only=True)
class ReadsAll(Attack):
    """Looks at every number of its view once, as the cheapest real attack would."""

    goal: ClassVar[str] = "reconstruction"
    reads: ClassVar[tuple[str, ...]] = ("activation",)
    source: ClassVar[str] = "none: it only reads"

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """The mean of all it saw, for every victim."""
        mean = torch.stack([message.payload.mean() for message in view.messages]).mean()
        return ReconstructionGuess(view.victims, mean.expand(len(view.victims), 1))


READS_ALL = Spec(f"{_HERE}.ReadsAll")


@dataclass(frozen=True)
class SealCost:
    """Medians over ``runs`` runs, in seconds."""

    megabytes: float
    runs: int
    sealed: float
    inline: float

    @property
    def more(self) -> float:
        """Seconds that the seal adds."""
        return self.sealed - self.inline

    @property
    def kept(self) -> bool:
        """Is it within what is promised?"""
        return self.more < LIMIT


def measure(attack: Spec = READS_ALL, megabytes: int = 50, runs: int = 7) -> SealCost:
    """Time an attack in both modes, alternating.

    Args:
        attack: a quick one on activations, so that what is measured is the seal.
        megabytes: size of the view, in messages of 32 rows of 512 channels.
        runs: of each mode.
    """
    view = _view(megabytes)
    times: dict[str, list[float]] = {"process": [], "inline": []}
    with Seal("process") as sealed, Seal("inline") as inline:
        for seal in (sealed, inline):
            seal.attack(attack, [view], seed=0)  # starts the helper, imports the attack
        for seed in range(runs):
            for seal in (sealed, inline):
                start = time.perf_counter()
                seal.attack(attack, [view], seed=seed)
                times[seal.mode].append(time.perf_counter() - start)
    process, direct = (statistics.median(times[mode]) for mode in ("process", "inline"))
    return SealCost(megabytes, runs, process, direct)


def _view(megabytes: int) -> View:
    rng, rows, channels = torch.Generator().manual_seed(0), torch.arange(32), 512
    count = megabytes * 10**6 // (4 * len(rows) * channels)
    net = Net(Spec("torch.nn.Linear", {"in_features": 64, "out_features": 10}))
    messages = tuple(
        Message(step, "train", "owner", "device-0", "activation", "net.1", None,
                torch.rand(len(rows), channels, generator=rng), rows)
        for step in range(count)
    )  # fmt: skip
    return View(
        seat=Seat("host-0", "infrastructure", ("device-0",)),
        topology=Topology("slicenet", ("owner", "device-0"), ("owner",), net, count, count),
        victims=torch.tensor([[0, index] for index in range(8)]),
        messages=messages,
    )


if __name__ == "__main__":
    cost = measure()
    print(
        f"view of {cost.megabytes:.0f} MB: sealed {cost.sealed:.3f} s, inline {cost.inline:.3f} s, "
        f"{cost.more:+.3f} s more (promised: under {LIMIT} s)"
    )
    sys.exit(0 if cost.kept else 1)
