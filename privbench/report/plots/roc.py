"""True against false positive rate of membership attacks, where false alarms are rare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from privbench.errors import UsageError
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.facts import about, headline, leakage, measured, varied
from privbench.report.plots.style import (
    COLOURS,
    GRID,
    INK,
    LINES,
    MUTED,
    SMALL,
    house_style,
    look,
    new_figure,
    panel,
    plain,
)
from privbench.report.report import Report
from privbench.scoring.score import Roc, Score

LIMIT = 6  # curves in one figure


@dataclass(frozen=True)
class Line:
    """A curve, whose it is, and the score that sums it up."""

    report: Report
    curve: Roc
    score: Score | None


def roc(reports: Sequence[Report]) -> Drawing:
    """ROC curves on logarithmic axes with 95 % bands, one a report: that of the seat that learns most.

    Raises:
        UsageError: no report has a curve.
    """
    lines = [line for report in reports if measured(report) and (line := _line(report))]
    if not lines:
        raise UsageError(
            "a ROC needs membership scores with curves, and no run here has them: "
            "run attack=lira or attack=loss_threshold, with again=true if it is an old run"
        )
    drawn = _picked(lines)
    with house_style():
        figure = new_figure(3.7)
        axes = panel(figure, 0.62, 0.5, 3.5, 3.05)
        edge = _draw(axes, drawn, [line.report.names.regime for line in lines])
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(1.03, 1.02), frameon=False, fontsize=SMALL,
            handlelength=3, labelspacing=0.9, borderaxespad=0,
        )  # fmt: skip
    caption = _caption(drawn, len(lines), edge)
    return Drawing("roc", "Who was in the training data?", caption, figure, _numbers(drawn))


def _line(report: Report) -> Line | None:
    """The curve of a report's seat that learns most."""
    scores = headline(report)
    curves = [curve for curve in report.curves if len(curve.fpr)]
    if not curves:
        return None
    best = max(curves, key=lambda c: leakage(scores[c.seat]) if c.seat in scores else -math.inf)
    return Line(report, best, scores.get(best.seat))


def _picked(lines: Sequence[Line]) -> list[Line]:
    """One of each regime first, then other threats, then the rest; in the order of the study."""
    own = [line for line in lines if line.report.status == "ok"] or list(lines)
    first: dict[tuple[str, tuple[float, ...]], Line] = {}
    for line in own:
        first.setdefault((line.report.names.regime, line.curve.tpr), line)
    own = list(first.values())
    return [own[place] for place in varied([line.report for line in own], LIMIT)]


def _draw(axes: Axes, lines: Sequence[Line], regimes: Sequence[str]) -> float:
    """Curves and bands; the false positive rate below which they are not reliable."""
    least = min(min((x for x in line.curve.fpr if x > 0), default=1.0) for line in lines)
    least = min(least, 0.1)
    edges = [line.curve.reliable_from for line in lines]
    edge = max((edge for edge in edges if math.isfinite(edge)), default=0.0)
    if edge > least:
        axes.axvspan(least, min(edge, 1.0), facecolor=GRID, alpha=0.5, linewidth=0, zorder=0)
        axes.text(
            least * 1.08, 1.2, "too few people to be sure", fontsize=SMALL, color=MUTED, va="bottom"
        )  # fmt: skip
    axes.plot([least, 1], [least, 1], color=MUTED, linewidth=0.9, zorder=1)
    many: dict[str, int] = {}
    alone = (
        len({line.report.names.regime for line in lines}) == 1
    )  # then a colour each tells them apart
    for line in lines:
        regime = line.report.names.regime
        kind = look(regime, regimes)
        turn = many[regime] = many.get(regime, -1) + 1
        colour = COLOURS[(kind + turn * alone) % len(COLOURS)]
        curve = line.curve
        low, high = np.maximum(curve.low, least / 3), np.maximum(curve.high, least / 3)
        axes.fill_between(curve.fpr, low, high, color=colour, alpha=0.12, linewidth=0, zorder=2)
        tpr = np.maximum(curve.tpr, least / 3)
        style = LINES[(kind + turn) % len(LINES)]
        axes.plot(
            curve.fpr, tpr, color=colour, linestyle=style, linewidth=1.5, label=_label(line), zorder=3
        )  # fmt: skip
    _scales(axes, least)
    return edge


def _label(line: Line) -> str:
    name = about(line.report, 46)
    if name.startswith("_"):  # matplotlib hides such names from its legends
        name = f" {name}"
    seat = f"\n{plain(line.curve.seat, 20)}" if len(line.report.curves) > 1 else "\n"
    auc = f"AUC {line.score.value:.3f}" if line.score and line.score.metric == "auc" else ""
    if line.score and line.score.by_construction:
        auc += ", by construction"
    return name + (f"{seat}, {auc}" if seat.strip() and auc else f"{seat}{auc}")


def _scales(axes: Axes, least: float) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(least / 3, 1.15)
    ticks = [10.0**power for power in range(math.floor(math.log10(least)), 1)]
    for axis, low in ((axes.xaxis, least), (axes.yaxis, least / 3)):
        kept = [tick for tick in ticks if tick >= low * 0.999]
        axis.set_ticks(kept, [f"{100 * tick:g} %" for tick in kept])
        axis.set_ticks([], minor=True)
    axes.grid(color=GRID, linewidth=0.6, zorder=0)
    axes.set_xlabel("outsiders wrongly called members (false positive rate)")
    axes.set_ylabel("members found (true positive rate)")
    axes.text(
        0.5, 0.42, "guessing", fontsize=SMALL, color=MUTED, rotation=40, ha="center", va="top"
    )
    axes.tick_params(color=INK)


def _caption(drawn: Sequence[Line], found: int, edge: float) -> str:
    scored = [line for line in drawn if line.score and math.isfinite(line.score.value)]
    lines = []
    if scored:
        top = max(scored, key=_rank)
        lines.append(f"The further a curve lies above the grey diagonal (guessing), the better the attack "
                     f"tells members from others; the highest is {about(top.report)}.")  # fmt: skip
    lines.append(
        f"Bands: 95 % intervals. Left of {100 * edge:.2g} % (shaded) a rate rests on fewer than ten "
        "non-members and proves nothing."
    )
    if found > len(drawn):
        lines.append(
            f"{len(drawn)} of {found} curves are drawn, one of each regime first; those that coincide, "
            "or belong to a model equal to the central one, only once."
        )
    return " ".join(lines)


def _rank(line: Line) -> tuple[bool, float]:
    """What is handed over by construction is never ranked with what was found out."""
    return (not line.score.by_construction, leakage(line.score)) if line.score else (False, 0.0)


def _numbers(drawn: Sequence[Line]) -> pd.DataFrame:
    """Every point of every curve."""
    frames = [
        pd.DataFrame(
            {
                "row": line.report.names.row, "curve": about(line.report), "seat": line.curve.seat,
                "fpr": line.curve.fpr, "tpr": line.curve.tpr, "low": line.curve.low,
                "high": line.curve.high, "reliable_from": line.curve.reliable_from,
            }
        )
        for line in drawn
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)
