"""How far the most vulnerable records leak, beside all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from privbench.errors import UsageError
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.facts import about, headline, leakage, measured, varied
from privbench.report.plots.style import (
    COLOURS,
    GRID,
    MARKS,
    MUTED,
    PAPER,
    SMALL,
    house_style,
    new_figure,
    panel,
)
from privbench.report.report import Report
from privbench.scoring.score import Score

GROUPS = {
    "auc": "all records",
    "auc_outliers": "a tenth, least like public records",
    "auc_exposed": "a tenth, most exposed by shadow models",
    "auc_worst_class": "the class that leaks most",
}
"""Metrics that are drawn, and what they are called."""
RUNS = 14  # lines in one figure


def vulnerable(reports: Sequence[Report]) -> Drawing:
    """Area under the curve of all records and of the most vulnerable ones, a line a run.

    Raises:
        UsageError: no run has scores of groups.
    """
    found = [(report, scores) for report in reports if (scores := _scores(report))]
    if not found:
        raise UsageError(
            "no run here has scores of the most vulnerable records: run attack=lira, with again=true "
            "if it is an old run"
        )
    shown = [found[place] for place in varied([report for report, _ in found], RUNS)]
    tall = 0.3 * len(shown)
    with house_style():
        figure = new_figure(tall + 1.0)
        axes = panel(figure, 2.75, 0.45, 4.2, tall)
        axes.axvline(0.5, color=MUTED, linewidth=0.9, zorder=1)
        for number, (metric, name) in enumerate(GROUPS.items()):
            drawn = [
                (line, scores[metric]) for line, (_, scores) in enumerate(shown) if metric in scores
            ]
            if not drawn:
                continue
            heights = [line + 0.17 * (number - 1.5) for line, _ in drawn]
            axes.hlines(
                heights, [s.low for _, s in drawn], [s.high for _, s in drawn],
                color=COLOURS[number], linewidth=1.0, alpha=0.75, zorder=2,
            )  # fmt: skip
            axes.plot(
                [s.value for _, s in drawn], heights, color=COLOURS[number], marker=MARKS[number],
                markersize=4.5, linestyle="", markeredgecolor=PAPER, markeredgewidth=0.4, label=name,
                zorder=3,
            )  # fmt: skip
        axes.set_yticks(range(len(shown)), [about(report, 48) for report, _ in shown])
        axes.set_ylim(len(shown) - 0.45, -0.55)
        axes.set_xlabel("members told from others (AUC; guessing: 0.5)")
        axes.grid(axis="x", color=GRID, linewidth=0.6, zorder=0)
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.62, 1.0), frameon=False, fontsize=SMALL, ncols=2,
            handletextpad=0.3, columnspacing=1.2,
        )  # fmt: skip
    return Drawing(
        "vulnerable", "The most vulnerable records", _caption(found, shown), figure, _numbers(found)
    )


Found = Sequence[tuple[Report, dict[str, Score]]]


def _scores(report: Report) -> dict[str, Score]:
    """Those of the seat that learns most; none where no group was scored."""
    if report.names.goal != "membership" or report.status != "ok" or not measured(report):
        return {}
    single = {score.seat for score in report.scores if score.metric in list(GROUPS)[1:]}
    heads = {seat: score for seat, score in headline(report).items() if seat in single}
    if not heads:
        return {}
    best = max(heads, key=lambda seat: leakage(heads[seat]))
    return {
        score.metric: score
        for score in report.scores
        if score.seat == best and score.metric in GROUPS and math.isfinite(score.value)
    }


def _caption(found: Found, shown: Found) -> str:
    said = ["Further right more leaks. A mean over all records hides those that leak most."]
    gaps = [
        (score.value, report, score, scores["auc"])
        for report, scores in shown
        for metric, score in scores.items()
        if metric != "auc" and "auc" in scores and score.verdict() == "leaks"
    ]
    if gaps:
        _, report, score, mean = max(gaps, key=lambda each: each[0])
        said.append(
            f"Most of all: {about(report)}, {score.value:.3f} for {GROUPS[score.metric]}, "
            f"{mean.value:.3f} for all."
        )
    said.append(
        "Bars are 95 % intervals. Tails were ranked before it was looked up who is a member; the class "
        "was selected on one half of the records and estimated on the other."
    )
    if len(found) > len(shown):
        said.append(f"{len(shown)} of {len(found)} runs are drawn, one of each regime first.")
    return " ".join(said)


def _numbers(found: Found) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "run": about(report), "row": report.names.row, "seat": score.seat,
                "records": GROUPS[metric], "auc": score.value, "low": score.low, "high": score.high,
                "blind": score.blind, "n": score.n, "n_negative": score.n_negative,
            }
            for report, scores in found
            for metric, score in scores.items()
        ]
    )  # fmt: skip
