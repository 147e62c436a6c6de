"""Leakage against what the model is good for, or against what training it sends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

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
    PAPER,
    TEXT,
    house_style,
    look,
    new_figure,
    panel,
)
from privbench.report.report import Report
from privbench.scoring.score import Score

LABELS = 24  # points of one panel that are named
NAME = 64  # characters of a name
LINE = 0.135  # inches a label takes
ABOVE, BELOW = 0.46, 0.42  # inches: title of a panel with the ticks of the one above; the last axis
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
    talls = [max(1.5, LINE * (min(len(panel), LABELS) + 1) + 0.1) for panel in panels]
    regimes = [point.report.names.regime for point in points]
    with house_style():
        figure = new_figure(sum(talls) + ABOVE * len(panels) + BELOW)
        top = sum(talls) + ABOVE * len(panels) + BELOW
        for shown, tall in zip(panels, talls, strict=True):
            top -= tall + ABOVE
            axes = panel(figure, 0.5, top, 3.1, tall)
            _scales(axes, points, column, last=shown is panels[-1])
            _panel(axes, shown, regimes)
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
    low, high = report.target.accuracy_low, report.target.accuracy_high
    return Point(report, score, x, x if low is None else low, x if high is None else high)


def _scales(axes: Axes, points: Sequence[Point], column: str, last: bool) -> None:
    """The same horizontal scale in every panel, named below the last."""
    low, high = min(p.left for p in points), max(p.right for p in points)
    if column == "bytes_per_sample":
        axes.set_xscale("log")
        first, end = math.floor(math.log10(low)), math.ceil(math.log10(high))
        ticks = [10.0**power for power in range(first, end + 1)]
        axes.set_xlim(min(ticks[0], low / 1.5), max(ticks[-1], high * 1.5))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    else:
        pad = 0.05 * (high - low) or 0.05
        axes.set_xlim(low - pad, high + pad)
    axes.grid(color=GRID, linewidth=0.6, zorder=0)
    axes.margins(y=0.08)
    if last:
        axes.set_xlabel(AXIS[column])


def _panel(axes: Axes, points: Sequence[Point], regimes: Sequence[str]) -> None:
    """Points with their intervals; hollow where no leak is shown."""
    ranked = sorted(points, key=lambda point: -leakage(point.score))
    tags = []
    for rank, point in enumerate(ranked):
        score, word = point.score, verdict(point.report, point.score)
        kind = look(point.report.names.regime, regimes)
        colour = COLOURS[kind]
        low, high = _bound(score.low, score.value), _bound(score.high, score.value)
        thin: dict[str, Any] = {"color": colour, "linewidth": 0.9, "alpha": 0.7, "zorder": 2}
        axes.plot([point.x, point.x], [low, high], **thin)
        axes.plot([point.left, point.right], [score.value, score.value], **thin)
        axes.plot(
            point.x, score.value, MARKS[kind], color=colour, markersize=5, zorder=4, markeredgewidth=1,
            markerfacecolor=PAPER if word in ("not shown to leak", "too few") else colour,
        )  # fmt: skip
        if rank < LABELS:
            after = " – by construction" if word == "by construction" else ""
            tags.append(
                Tag(about(point.report, NAME - len(after)) + after, point.x, score.value, colour)
            )
    guess = _blind(axes, points)
    score = points[0].score
    axes.set_title(f"{score.goal}: {words(score)}", loc="left", fontsize=TEXT, pad=5)
    write_beside(axes, [*tags, *guess], LINE)


def _bound(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) else otherwise


def _blind(axes: Axes, points: Sequence[Point]) -> list[Tag]:
    """What guessing gives: one line where it is the same for all, else a dash for each point."""
    known = [point for point in points if math.isfinite(point.score.blind)]
    blinds = sorted({round(point.score.blind, 9) for point in known})
    if not blinds:
        return []
    if len(blinds) == 1:
        axes.axhline(blinds[0], color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
        return [Tag("guessing", axes.get_xlim()[1], blinds[0], MUTED)]
    for point in known:
        axes.plot(point.x, point.score.blind, "_", color=MUTED, markersize=11, zorder=3)
    last = max(known, key=lambda point: (point.score.blind, point.x))
    return [Tag("guessing (dashes)", last.x, last.score.blind, MUTED)]


def _caption(points: Sequence[Point], column: str) -> str:
    top = max(points, key=lambda point: (not point.score.by_construction, leakage(point.score)))
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
    lines.append(
        "Hollow points are not shown to leak. Where many seats were attacked, the worst one stands for them."
    )
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
