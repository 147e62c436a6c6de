"""How much slicers send: against the proven optimum, other slicers and a partitioner; and how long it takes.

Instances are those of the tests (``tests/slicenet/instances.py``), by seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from math import inf
from pathlib import Path
from statistics import mean, median
from types import ModuleType

import numpy as np
from figure import Figure

from privbench.errors import BudgetError
from privbench.slicenet.crowd import Device
from privbench.slicenet.problem import Problem, Slicing, check_budgets, volume
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.exact import solve
from privbench.slicenet.slicers.hypergraph import Hypergraph
from privbench.slicenet.slicers.kahypar import partition
from privbench.slicenet.slicers.layerwise import Layerwise
from privbench.slicenet.slicers.metis import Metis

LARGE = 200  # instances against baselines
LOOSE = 40  # more of them, where memory alone is tight
SMALL = 120  # instances for the optimum
PATIENCE = 60.0  # s for the proof of one optimum


def instances() -> ModuleType:
    """The generator, from where the tests are."""
    folder = str(Path(__file__).resolve().parents[1] / "tests" / "slicenet")
    if folder not in sys.path:
        sys.path.append(folder)
    import instances as found

    return found


def sent(problem: Problem, slicer: Slicer) -> float | None:
    """Bytes a sample under a slicing that was checked; None where the slicer refuses."""
    try:
        slicing = slicer.slice(problem)
    except BudgetError:
        return None
    check_budgets(problem, slicing)
    return float(volume(problem, slicing))


def partitioned(problem: Problem) -> float | None:
    """Bytes a sample by Mt-KaHyPar, which looks at compute alone."""
    left = [
        device.compute - problem.flops(number, ()) if device.hosts else 0.0
        for number, device in enumerate(problem.devices)
    ]
    able = [number for number, spare in enumerate(left) if spare > 0]
    flops = [problem.batch * vertex.flops for vertex in problem.vertices]
    parts = partition(problem, flops, [left[number] for number in able])
    if parts is None:
        return None
    return float(volume(problem, Slicing(tuple(able[part] for part in parts))))


@dataclass(frozen=True)
class Row:
    """What was sent on one instance, bytes a sample.

    Args:
        name: of the instance.
        ours: by ``hypergraph``; None = it refuses.
        baseline: by the better of METIS and ``layerwise``.
        kahypar: by Mt-KaHyPar; None = it is not installed, or finds nothing.
    """

    name: str
    ours: float | None
    baseline: float
    kahypar: float | None


@dataclass(frozen=True)
class Rows:
    """Instances on which there is a baseline, and how many were passed over because there is none."""

    rows: tuple[Row, ...]
    without: int

    def saved(self) -> list[float]:
        """Share of the baseline that is not sent; -inf where there is no slicing of ours."""
        return [1 - (row.ours or inf) / row.baseline for row in self.rows]

    def ratios(self) -> list[float]:
        """Ours over Mt-KaHyPar's."""
        return [row.ours / row.kahypar for row in self.rows if row.ours and row.kahypar]


@cache
def large(crowd: str, count: int) -> Rows:
    """Larger instances of all networks with unequal devices, by seed."""
    drawn = instances()
    rows: list[Row] = []
    without = 0
    while len(rows) < count:
        seed = len(rows) + without
        kind = drawn.NETWORKS[seed % len(drawn.NETWORKS)]
        each = drawn.instance(seed, kind=kind, crowd=crowd, small=False)
        found = [sent(each.problem, slicer) for slicer in (Metis(), Layerwise())]
        least = min((one for one in found if one is not None), default=None)
        if least is None:
            without += 1
            continue
        ours = sent(each.problem, Hypergraph())
        rows.append(Row(each.name, ours, least, partitioned(each.problem)))
        print(rows[-1], file=sys.stderr, flush=True)
    return Rows(tuple(rows), without)


def optimum() -> tuple[Figure, ...]:
    """Volume over the proven least, on small instances of every network and crowd."""
    drawn = instances()
    over: list[tuple[float, str]] = []
    refused: list[str] = []
    every = [(kind, crowd) for kind in drawn.NETWORKS for crowd in drawn.CROWDS]
    for seed in range(SMALL):
        kind, crowd = every[seed % len(every)]
        each = drawn.instance(seed, kind=kind, crowd=crowd)
        exact = solve(each.problem, PATIENCE)
        if not exact.proven:
            continue
        ours = sent(each.problem, Hypergraph())
        if ours is None:
            refused.append(each.name)
        else:
            over.append((ours / exact.volume - 1 if exact.volume else ours, each.name))
    over.sort(reverse=True)
    middle, worst = median(more for more, _ in over), over[0][0]
    far = [f"{name} ({100 * more:.1f} %)" for more, name in over if more > 0.02]
    return (
        Figure(
            what="hypergraph over the proven optimum, small instances: median",
            asked="within 2 %",
            value=middle,
            unit="%",
            met=middle <= 0.02 and not refused,
            note=f"{len(over)} of {SMALL} proven in {PATIENCE:g} s each, "
            f"{sum(more < 1e-6 for more, _ in over)} equal to the optimum; refused: {listed(refused)}",
        ),
        Figure(
            what="the same: worst",
            asked="within 10 %",
            value=worst,
            unit="%",
            met=worst <= 0.1 and not refused,
            note=f"more than 2 % over: {listed(far)}",
        ),
    )


def baselines() -> tuple[Figure, ...]:
    """Volume against METIS, ``layerwise`` and Mt-KaHyPar where both budgets are tight."""
    found = large("unequal", LARGE)
    saved, ratios = found.saved(), found.ratios()
    worse = [row.name for row, share in zip(found.rows, saved, strict=True) if share < 0]
    loose = large("tight-memory", LOOSE)
    return (
        Figure(
            what="hypergraph against the better of METIS and layerwise, larger instances: saved",
            asked="at least 15 % on average",
            value=mean(saved),
            unit="%",
            met=mean(saved) >= 0.15,
            note=f"{len(saved)} instances; {found.without} more passed over, on which the simplest "
            f"repair makes neither feasible; where compute is loose ({LOOSE} more): "
            f"{100 * mean(loose.saved()):.1f} %",
        ),
        Figure(
            what="the same: instances on which it sends more, or refuses",
            asked="none",
            value=len(worse),
            met=not worse,
            note=listed(worse),
            digits=0,
        ),
        Figure(
            what="hypergraph over Mt-KaHyPar without its memory constraint, same instances",
            asked="at most 1.05 on average",
            value=mean(ratios) if ratios else None,
            met=bool(ratios) and mean(ratios) <= 1.05,
            note=f"{len(ratios)} instances, {min(ratios):.2f} to {max(ratios):.2f}; where compute is "
            f"loose, so that memory alone is in the way: {mean(loose.ratios()):.2f}",
            digits=3,
        ),
    )


def alexnet(devices: int) -> Problem:
    """The AlexNet-style network in blocks of 4 channels, on devices that are all alike and have no limit.

    Its body has 656 vertices; 19 more are stem and tail, which owners run. All devices own equal shares.
    """
    drawn = instances()
    convolutions = ((192, 256, 64), (384, 64, 64), (256, 64, 64), (256, 64, 16))
    layers = [drawn.Layer(wide // 4, 4, 3, area, pooled) for wide, area, pooled in convolutions]
    layers += [drawn.Layer(wide // 4, 4) for wide in (1024, 512)]
    net = drawn.chain(layers, "output", 64 * 256)
    return Problem(
        vertices=tuple(net.vertices),
        flows=tuple(net.flows),
        devices=(Device(compute=inf, memory=inf),) * devices,
        shares=(Fraction(1, devices),) * devices,
        batch=64,
        own_rows=(1,) * devices,
        element=4,
        state=1,
        owner_flops=0.0,
        owner_parameters=0,
        owner_output=0,
    )


def balanced(devices: int) -> Problem:
    """``alexnet`` with compute balanced within 7 %."""
    problem = alexnet(devices)
    whole = problem.flops(0, range(len(problem.vertices)))
    return replace(
        problem, devices=(Device(compute=1.07 * whole / devices, memory=1e30),) * devices
    )


def scarce(devices: int) -> Problem:
    """``alexnet`` on devices that can do twice what the costliest vertex needs, and hold as much."""
    problem = alexnet(devices)
    vertices = range(len(problem.vertices))
    compute = 2 * max(problem.flops(0, (vertex,)) for vertex in vertices)
    memory = 2 * max(problem.memory(0, (vertex,)) for vertex in vertices)
    return replace(problem, devices=(Device(compute=compute, memory=memory),) * devices)


def table() -> tuple[Figure, ...]:
    """Volume on the AlexNet-style network, compute balanced within 7 %."""
    rows = []
    for devices in (4, 8, 16, 50):
        problem = balanced(devices)
        others = (
            ("METIS", sent(problem, Metis())),
            ("layerwise", sent(problem, Layerwise())),
            ("Mt-KaHyPar", partitioned(problem)),
        )
        ours = sent(problem, Hypergraph())
        words = [f"{name} {value / 1e3:.0f}" for name, value in others if value]
        words += [f"{name} refused" for name, value in others if not value]
        least = min(value for _, value in others if value)
        rows.append(
            Figure(
                what=f"AlexNet-style, 656 vertices, {devices} devices: kB a sample",
                asked="at most the best of the others",
                value=ours / 1e3 if ours else None,
                unit="kB",
                met=bool(ours) and ours <= least,
                note=", ".join(words),
            )
        )
    return tuple(rows)


def speed() -> tuple[Figure, ...]:
    """Seconds to slice, alone on the machine."""
    drawn = instances()
    rng = np.random.default_rng(0)
    cases = (
        ("AlexNet-style, 656 vertices, 1,000 devices", scarce(1000), 10.0),
        (
            "20,000 vertices, 1,000 devices",
            drawn.drawn(rng, "conv-output", "unequal", 20_000, 1000).problem,
            60.0,
        ),
    )
    figures = []
    for what, problem, limit in cases:
        begun = time.perf_counter()
        found = sent(problem, Hypergraph())
        seconds = time.perf_counter() - begun
        other = sent(problem, Layerwise())
        others = f"layerwise {other / 1e3:.0f}" if other else "layerwise refuses"
        figures.append(
            Figure(
                what=f"slicing {what}",
                asked=f"under {limit:g} s",
                value=seconds,
                unit="s",
                met=seconds < limit and found is not None,
                note=f"{found / 1e3:.0f} kB a sample; {others}" if found else f"refused; {others}",
            )
        )
    return tuple(figures)


def listed(names: list[str]) -> str:
    """Some names, and how many more."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "none") + more


PARTS = (optimum, baselines, table, speed)


def main(names: Sequence[str]) -> None:
    """Print figures of some parts, or of all: ``python benchmarks/slicing.py optimum``."""
    for part in PARTS:
        if not names or part.__name__ in names:
            for figure in part():
                print(
                    f"{figure.verdict():7}{figure.what}: {figure.words()} ({figure.asked}); {figure.note}"
                )


if __name__ == "__main__":
    main(sys.argv[1:])
