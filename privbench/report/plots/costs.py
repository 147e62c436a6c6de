"""What training costs devices: load against budget, and a step's bill beside other regimes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from privbench.errors import UsageError
from privbench.report.crowd import Bill, CrowdFacts, Load, Volume
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.facts import stem_of
from privbench.report.plots.style import (
    COLOURS,
    GRID,
    INK,
    MUTED,
    SMALL,
    TEXT,
    house_style,
    look,
    new_figure,
    panel,
    plain,
)
from privbench.report.report import Report

NEAR = 0.2  # share of a budget from which its end is shown
NAMED = 40  # devices that get a line of their own; more are drawn as dots without names


def loads(report: Report) -> Drawing:
    """Each device's work and memory in a step, as a share of its budget.

    Raises:
        UsageError: it sliced no network.
    """
    crowd = _crowd(report)
    ranked = sorted(crowd.loads, key=lambda load: -_fullest(load))
    tall = max(1.2, len(ranked) * 0.13) if len(ranked) <= NAMED else 2.4
    with house_style():
        figure = new_figure(tall + 0.75)
        for number, (title, share) in enumerate(SHARES):
            axes = panel(figure, 0.85 + 3.2 * number, 0.42, 2.85, tall)
            _ranks(axes, ranked, share, title, named=number == 0)
    hosts = len({block.party for block in crowd.blocks})
    worst = ranked[0]
    caption = (
        f"{hosts} of {len(ranked)} devices host a slice. The fullest device, {plain(worst.party)}, uses "
        f"{100 * _fullest(worst):.3g} % of one of its two budgets"
        + ("; the line is the budget." if _fullest(worst) > NEAR else ".")
    )
    numbers = pd.DataFrame([_numbers(load) for load in ranked])
    return Drawing(stem_of("loads", report), "Load against budget", caption, figure, numbers)


SHARES: tuple[tuple[str, Callable[[Load], float]], ...] = (
    ("computing, share of the budget", lambda load: _ratio(load.flops, load.flops_budget)),
    ("memory, share of the budget", lambda load: _ratio(load.memory, load.memory_budget)),
)


def _ratio(need: float, budget: float) -> float:
    return need / budget if budget else float(need > 0)


def _fullest(load: Load) -> float:
    return max(share(load) for _, share in SHARES)


def _numbers(load: Load) -> dict[str, float | str]:
    return {
        "device": load.party, "flops": load.flops, "flops_budget": load.flops_budget,
        "memory": load.memory, "memory_budget": load.memory_budget, "sent": load.sent,
        "received": load.received, "seconds": load.seconds, "joules": load.joules,
    }  # fmt: skip


def _ranks(
    axes: Axes, ranked: Sequence[Load], share: Callable[[Load], float], title: str, named: bool
) -> None:
    """A line a device from 0 to its share; the fullest on top."""
    places = list(range(len(ranked), 0, -1))
    values = [share(load) for load in ranked]
    if len(ranked) <= NAMED:
        axes.hlines(places, 0, values, color=MUTED, linewidth=1.0, zorder=2)
        axes.plot(values, places, "o", color=COLOURS[0], markersize=4, zorder=3)
    else:
        axes.plot(values, places, ".", color=COLOURS[0], markersize=2, zorder=3)
    top = max(values)
    if top > NEAR:
        axes.axvline(1.0, color=INK, linewidth=1.0, zorder=1)
    axes.set_xlim(0, 1.08 if top > NEAR else 1.08 * top or 1.0)
    axes.set_ylim(0.2, len(ranked) + 0.8)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    few = named and len(ranked) <= NAMED
    axes.set_yticks(places if few else [], [plain(x.party, 12) for x in ranked] if few else [])
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, loc="left", fontsize=TEXT, pad=5)
    axes.grid(axis="x", color=GRID, linewidth=0.6, zorder=0)


@dataclass(frozen=True)
class Measure:
    """One number of a bill: what it is called, and how it is taken, for 1,000 samples."""

    name: str
    title: str
    of: Callable[[Bill], float]


MEASURES = (
    Measure("seconds", "simulated time, s", lambda bill: 1000 * bill.seconds / bill.rows),
    Measure("megabytes", "traffic, MB", lambda bill: bill.nbytes / bill.rows / 1000),
    Measure("joules", "energy of devices, J", lambda bill: 1000 * bill.joules / bill.rows),
    Measure("gigaflops", "work of all, GFLOP", lambda bill: bill.flops / bill.rows / 1e6),
)


def bills(report: Report) -> Drawing:
    """Time, traffic, energy and work for 1,000 samples, here and under other regimes.

    Raises:
        UsageError: it sliced no network, or an older report lacks the bills.
    """
    found = _crowd(report).bills
    if not found:
        raise UsageError("this report holds no bills: run it again with again=true")
    tall = 0.2 * len(found) + 0.1
    with house_style():
        figure = new_figure(tall + 0.75)
        for number, measure in enumerate(MEASURES):
            axes = panel(figure, 0.8 + 1.62 * number, 0.42, 1.3, tall)
            _bars(
                axes, [bill.regime for bill in found], [measure.of(bill) for bill in found],
                measure.title, named=number == 0,
            )  # fmt: skip
    mine, *others = found
    most = max(others, key=lambda bill: bill.nbytes / bill.rows, default=mine)
    caption = (
        "For 1,000 training samples on the same crowd, simulated; servers are small machines of their "
        f"own. {mine.regime} sends {mine.nbytes / mine.rows / 1000:.3g} kB a sample, {most.regime} "
        f"{most.nbytes / most.rows / 1000:.3g} kB; centralized training sends each record once."
    )
    rows = [{"regime": b.regime, **{m.name: m.of(b) for m in MEASURES}} for b in found]
    return Drawing(
        stem_of("costs", report), "What training costs", caption, figure, pd.DataFrame(rows)
    )


def volumes(report: Report) -> Drawing:
    """Bytes per sample between devices, as different slicers have it.

    Raises:
        UsageError: it sliced no network, or no other slicer was asked.
    """
    found = _crowd(report).volumes
    known = sorted((v for v in found if v.nbytes is not None), key=lambda v: v.nbytes or 0.0)
    if len(known) < 2:
        raise UsageError("only one slicer was asked: set regime.baselines")
    tall = 0.2 * len(known) + 0.1
    with house_style():
        figure = new_figure(tall + 0.75)
        axes = panel(figure, 1.2, 0.42, 5.2, tall)
        values = [(v.nbytes or 0.0) / 1000 for v in known]
        _bars(
            axes, [v.slicer for v in known], values, "kB between devices for a sample", named=True
        )
    numbers = pd.DataFrame([vars(volume) for volume in found])
    name = stem_of("volumes", report)
    return Drawing(name, "Traffic by slicer", _compared(known, found), figure, numbers)


def _compared(known: Sequence[Volume], found: Sequence[Volume]) -> str:
    mine = next((v for v in known if v.chosen), known[0])
    other = min((v for v in known if v is not mine), key=lambda v: v.nbytes or 0.0)
    ratio = (mine.nbytes or 0.0) / (other.nbytes or 1.0)
    word = "less" if ratio <= 1 else "more"
    lines = [
        f"All keep the same budgets. Trained with {mine.slicer}: {100 * abs(1 - ratio):.3g} % {word} "
        f"than {other.slicer}, the next best."
    ]
    lines += [f"{v.slicer} found no slicing." for v in found if v.nbytes is None]
    return " ".join(lines)


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], title: str, named: bool
) -> None:
    """Bars from the top down, each with its value."""
    places = list(range(len(names), 0, -1))
    colours = [COLOURS[look(name, names)] for name in names]
    axes.barh(places, values, height=0.62, color=colours, zorder=2)
    most = max([*values, 1e-12])
    axes.set_xlim(0, most * 1.45)
    for place, value in zip(places, values, strict=True):
        shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        axes.text(value + most * 0.03, place, shown, va="center", fontsize=SMALL, color=INK)
    axes.set_ylim(0.4, len(names) + 0.6)
    axes.set_yticks(places if named else [], [plain(n, 16) for n in names] if named else [])
    axes.tick_params(axis="y", length=0)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_title(title, loc="left", fontsize=TEXT, pad=4)


def _crowd(report: Report) -> CrowdFacts:
    if report.crowd is None:
        raise UsageError("costs of devices need a sliced network: run it with regime=slicenet")
    return report.crowd
