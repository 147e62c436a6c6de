"""Decoding for many hosts at once: ``python benchmarks/decoder.py``.

Two crowds train LeNet-5 on Fashion-MNIST, cut along input channels so that hosts see different parts of
layers. In the first, of 200 devices, 100 hosts are decoded together. In the second, of 1,000 devices, a
hundred hosts give worst, median and best, and coalitions of growing size, drawn and by greedy search, a
curve with a band that holds all of it at once.

Needs the files of Fashion-MNIST below the folder that PRIVBENCH_DATA names.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from figure import Figure

from privbench.attacking import attack_seed
from privbench.compose.launch import one
from privbench.compose.words import understood
from privbench.contract import View, child_rng
from privbench.data.splits import Opened, open_population
from privbench.experiment import cut, scored
from privbench.plan import Plan
from privbench.scoring.bands import Point, band
from privbench.scoring.score import Measured, Score, SeatResult
from privbench.scoring.seats import summarise
from privbench.scoring.statistics import numpy_rng
from privbench.seating import seats_of, with_victims
from privbench.store import Store
from privbench.targets import Opening, target_of
from privbench.threats.crowd import Hosts

HOSTS, ALONE = 100, 5.0  # seats decoded together, and seconds that they may take
CROWD, TOGETHER = 1_000, 600.0  # devices, and seconds that all may take
FRACTIONS, DRAWS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0), 3
COMMON = (
    "regime=slicenet", "attack=ridge_decoder", "data=fashion_mnist", "model=lenet", "tiling=input",
    "slicer=random", "regime.granularity=1", "regime.epochs=1", "regime.lr=0.1", "regime.batch=64",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Stage:
    """A crowd that was trained, and what it takes to attack it."""

    plan: Plan
    opened: Opened
    target: Opening

    def views(self, threat: object = None) -> tuple[View, ...]:
        """Those of a threat, or of the plan's, that saw somebody."""
        plan = self.plan if threat is None else replace(self.plan, threat=threat)
        seats, _ = seats_of(plan, self.target.topology, self.opened)
        found, _ = with_victims(plan.attack, cut(plan, self.opened, self.target, seats))
        return found

    def attacked(self, views: Sequence[View]) -> list[SeatResult]:
        """Scores of all of them, attacked together."""
        rng = torch.Generator().manual_seed(attack_seed(self.plan))
        return scored(self.plan, self.opened, views, self.plan.attack.run_all(views, rng))


def trained(folder: Path, *words: str) -> Stage:
    """Train a crowd.

    Raises:
        RuntimeError: nobody said where the data are.
    """
    root = os.environ.get("PRIVBENCH_DATA")
    if not root:
        raise RuntimeError("PRIVBENCH_DATA is not set; expected the folder above fashion-mnist/")
    plan, _ = one(understood((*COMMON, f"data.root={root}", f"out={folder}", *words)))
    opened = open_population(plan.data, plan.seed)
    return Stage(plan, opened, target_of(plan, opened, Store(plan.out)))


def hosts(folder: Path) -> tuple[Figure, ...]:
    """A decoder for every one of 100 hosts."""
    torch.set_num_threads(1)
    crowd = ("data.records=3600", "crowd.devices=200", "regime.epochs=2")
    stage = trained(folder, *crowd, "threat=host", f"threat.sample={HOSTS}")
    views = stage.views()
    rng = torch.Generator().manual_seed(1)
    apart = time.process_time()
    for view in views:
        stage.plan.attack.run(view, child_rng(rng, view.seat.name))
    middle, start = time.process_time(), time.perf_counter()
    stage.plan.attack.run_all(views, rng)
    seconds, wall = time.process_time() - middle, time.perf_counter() - start
    return (
        Figure(
            what=f"ridge_decoder for every one of {len(views)} hosts, LeNet-5, Fashion-MNIST",
            asked=f"under {ALONE:.0f} s together",
            value=seconds,
            unit="s",
            met=seconds < ALONE,
            note=f"processor time, one thread ({wall:.1f} s on the clock); one after another "
            f"{middle - apart:.1f} s; {len(views[0].victims)} victims a host",
        ),
    )


@dataclass(frozen=True, eq=False)
class Curve:
    """How many victims a coalition identifies, by its size.

    Args:
        sizes: hosts.
        drawn, worst: with a band that holds both curves at once.
        summary: of single hosts.
    """

    sizes: tuple[int, ...]
    drawn: tuple[Point, ...]
    worst: tuple[Point, ...]
    summary: tuple[Score, ...]
    hosts: int


def coalitions(folder: Path) -> Curve:
    """Single hosts and coalitions of a large crowd."""
    crowd = ("data.records=12000", f"crowd.devices={CROWD}")
    stage = trained(folder, *crowd, "threat=host", f"threat.sample={HOSTS}")
    single = stage.attacked(stage.views())
    views, places = [], []
    for fraction in FRACTIONS:
        for draw in (*range(DRAWS), "worst"):
            (view,) = stage.views(Hosts(fraction=fraction, draw=draw))
            views.append(view)
            places.append((fraction, draw == "worst"))
    measured = [_identified(result) for result in stage.attacked(views)]
    points = [
        [m for m, place in zip(measured, places, strict=True) if place == (fraction, worst)]
        for worst in (False, True)
        for fraction in FRACTIONS
    ]
    rng = numpy_rng(child_rng(torch.Generator().manual_seed(stage.plan.seed), "curve"))
    found = band(points, rng)
    sizes = tuple(len(view.seat.parties) for view in views[:: DRAWS + 1])
    count = len(FRACTIONS)
    summary = summarise(single, stage.plan.seed)
    return Curve(sizes, found[:count], found[count:], summary, len(stage.target.topology.hosts()))


def _identified(result: SeatResult) -> Measured:
    return next(m for m in result.measured if m.metric == "identification")


def curve(folder: Path) -> tuple[Figure, ...]:
    """Everything about 1,000 devices, training included."""
    torch.set_num_threads(1)
    start, clock = time.process_time(), time.perf_counter()
    found = coalitions(folder)
    seconds, wall = time.process_time() - start, time.perf_counter() - clock
    single = {s.seat: s for s in found.summary if s.metric == "identification"}
    told = "; ".join(
        f"{size} hosts {_words(one)} drawn, {_words(other)} worst"
        for size, one, other in zip(found.sizes, found.drawn, found.worst, strict=True)
    )
    heads = ", ".join(f"{name} {single[name].value:.2f}" for name in ("worst", "median", "best"))
    return (
        Figure(
            what=f"worst, median, best and the coalition curve of {CROWD:,} devices, Fashion-MNIST",
            asked=f"under {TOGETHER / 60:.0f} minutes",
            value=seconds,
            unit="s",
            met=seconds < TOGETHER,
            note=f"processor time, one thread, training included ({wall:.0f} s on the clock); "
            f"identification among 500: {heads} of {HOSTS} sampled of {found.hosts} hosts; means of "
            f"{DRAWS} draws, 95 % bands for all points together: {told}",
        ),
    )


def _words(point: Point) -> str:
    return f"{point.value:.2f} [{point.low:.2f}, {point.high:.2f}]"


if __name__ == "__main__":
    for figure in (*hosts(Path(sys.argv[1])), *curve(Path(sys.argv[1]))):
        print(figure.what, figure.words(), figure.verdict(), figure.note, sep="\n  ")
