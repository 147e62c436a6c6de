"""Leakage against what the model is good for, or against what training it sends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from matplotlib.axes import Axes

from privbench.errors import UsageError
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.facts import about, chosen, leakage, measured, number, verdict, words
from privbench.report.plots.labels import Tag, write_beside
from privbench.report.plots.style import (
    COLOURS,
    GRID,
    MARKS,
    MUTED,
    SMALL,
    TEXT,
    house_style,
    look,
    new_figure,
    panel,
)
from privbench.report.report import Report
from privbench.scoring.score import Score
from privbench.scoring.statistics import clopper_pearson

LABELS = 24  # points of one panel that are named
LINE = 0.135  # inches a label takes
AXIS = {"accuracy": "test accuracy of the model", "bytes_per_sample": "kB sent per training sample"}
TITLE = {
    "accuracy": "Leakage against accuracy",
    "bytes_per_sample": "Leakage against traffic",
}


@dataclass(frozen=True)
class Point:
    """A report in a panel; ``left`` and ``right`` bound ``x`` (95 %), equal where it has no interval."""

    report: Report
    score: Score
    x: float
    left: float
    right: float


def against(reports: Sequence[Report], column: str) -> Drawing:
    """Headline leakage of each report against ``accuracy`` or ``bytes_per_sample``, a panel a goal.

    Raises:
        UsageError: the column is another, or no report has both numbers.
    """
    if column not in AXIS:
        raise UsageError(f"leakage is drawn against {' or '.join(AXIS)}, not '{column}'")
    points = [point for report in reports if (point := _point(report, column))]
    if not points:
        raise UsageError(f"no run here has both a score and {column}: nothing to draw against it")
    goals = list(dict.fromkeys((p.score.goal, p.score.metric) for p in points))
    panels = [[p for p in points if (p.score.goal, p.score.metric) == goal] for goal in goals]
    talls = [max(1.7, LINE * min(len(panel), LABELS) + 0.2) for panel in panels]
    regimes = [point.report.names.regime for point in points]
    with house_style():
        figure = new_figure(sum(talls) + 0.72 * len(panels) + 0.05)
        top = sum(talls) + 0.72 * len(panels) - 0.2
        for shown, tall in zip(panels, talls, strict=True):
            axes = panel(figure, 0.62, top - tall, 3.5, tall)
            _panel(axes, shown, column, regimes)
            top -= tall + 0.72
    name = f"leakage-{column.partition('_')[0]}"
    return Drawing(name, TITLE[column], _caption(points, column), figure, _numbers(points, column))


def _point(report: Report, column: str) -> Point | None:
    x, score = getattr(report.target, column), chosen(report)
    if not measured(report) or score is None or x is None:
        return None
    if not (math.isfinite(x) and math.isfinite(score.value)):
        return None
    if column == "bytes_per_sample":
        return Point(report, score, x / 1000, x / 1000, x / 1000) if x > 0 else None
    n = int(report.run.splits.get("non-members", 0))
    if not n:
        return Point(report, score, x, x, x)
    interval = clopper_pearson(round(x * n), n)
    return Point(report, score, x, interval.low, interval.high)


def _panel(axes: Axes, points: Sequence[Point], column: str, regimes: Sequence[str]) -> None:
    if column == "bytes_per_sample":
        axes.set_xscale("log")
    tags = []
    for point in points:
        kind = look(point.report.names.regime, regimes)
        score, colour = point.score, COLOURS[kind]
        low, high = _bound(score.low, score.value), _bound(score.high, score.value)
        axes.plot([point.x, point.x], [low, high], color=colour, linewidth=0.9, alpha=0.7, zorder=2)
        axes.plot([point.left, point.right], [score.value] * 2, color=colour, linewidth=0.9, alpha=0.7,
                  zorder=2)  # fmt: skip
        axes.plot(point.x, score.value, MARKS[kind], color=colour, markersize=5, zorder=4,
                  markeredgewidth=0)  # fmt: skip
        tags.append(Tag(about(point.report, 48), point.x, score.value, colour))
    _blind(axes, points)
    _scales(axes, points, column)
    ranked = sorted(zip(tags, points, strict=True), key=lambda pair: -leakage(pair[1].score))
    write_beside(axes, [tag for tag, _ in ranked[:LABELS]], LINE)


def _bound(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) else otherwise


def _blind(axes: Axes, points: Sequence[Point]) -> None:
    """What guessing gives: one line where it is the same for all, else a dash below each point."""
    blinds = sorted({round(p.score.blind, 9) for p in points if math.isfinite(p.score.blind)})
    if len(blinds) == 1:
        axes.axhline(blinds[0], color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    for point in points if len(blinds) > 1 else ():
        axes.plot(point.x, point.score.blind, "_", color=MUTED, markersize=11, zorder=3)
    if blinds:
        axes.annotate(
            "guessing", (0, blinds[-1]), xycoords=("axes fraction", "data"), xytext=(3, 2),
            textcoords="offset points", fontsize=SMALL, color=MUTED, va="bottom",
        )  # fmt: skip


def _scales(axes: Axes, points: Sequence[Point], column: str) -> None:
    score = points[0].score
    axes.grid(color=GRID, linewidth=0.6, zorder=0)
    axes.set_xlabel(AXIS[column])
    axes.set_title(f"{score.goal}: {words(score)}", loc="left", fontsize=TEXT, pad=5)
    axes.margins(0.06, 0.08)
    if column == "bytes_per_sample":
        low, high = (f(p.x for p in points) for f in (min, max))
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        ticks = [10.0**power for power in range(first, last + 1)]
        axes.set_xlim(min(ticks[0], low / 1.5), max(ticks[-1], high * 1.5))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)


def _caption(points: Sequence[Point], column: str) -> str:
    top = max(points, key=lambda point: leakage(point.score))
    right = "better" if column == "accuracy" else "dearer to train"
    value, blind = (number(v, top.score.metric) for v in (top.score.value, top.score.blind))
    lines = [
        f"Upwards more leaks; to the right the model is {right}. "
        f"Most leaks in {about(top.report)}: {value}, where guessing gives {blind}."
    ]
    bars = "Bars are 95 % intervals"
    lines.append(
        f"{bars} of both."
        if column == "accuracy"
        else f"{bars} of the leakage; traffic is counted."
    )
    lines.append("Where many seats were attacked, the worst one stands for them.")
    most = max(len(list(group)) for _, group in groupby(sorted(p.score.goal for p in points)))
    if most > LABELS:
        lines.append(f"Only the {LABELS} highest points of a panel are named.")
    return " ".join(lines)


def _numbers(points: Sequence[Point], column: str) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "row": p.report.names.row, "regime": p.report.names.regime, "point": about(p.report),
                "goal": p.score.goal, column: getattr(p.report.target, column),
                f"{column}_low": p.left if column == "accuracy" else None,
                f"{column}_high": p.right if column == "accuracy" else None,
                **{n: getattr(p.score, n) for n in ("metric", "seat", "value", "low", "high", "blind", "n")},
                "verdict": verdict(p.report, p.score),
            }
            for p in points
        ]
    )  # fmt: skip
