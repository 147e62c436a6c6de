"""Does slicing help: one thing changed at a time, beside two parties that slice nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes

from privbench.errors import UsageError
from privbench.report.plots.along import METRICS, words_of
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.style import (
    COLOURS,
    GRID,
    INK,
    MUTED,
    PAPER,
    SMALL,
    TEXT,
    house_style,
    new_figure,
    panel,
    plain,
    slug,
)

WORD = "ablation"
LINE = 0.2  # inches a configuration takes
SHOWN = {"worst": (COLOURS[4], "o", "worst seat"), "median": (COLOURS[0], "D", "median seat")}


@dataclass(frozen=True)
class Way:
    """A configuration: what it is called, what it sends, and its scores by metric and seat."""

    name: str
    control: bool
    scores: pd.DataFrame


def slicing(lines: pa.Table) -> list[Drawing]:
    """Worst and median seat of each row with variant=ablation_…, one figure a data set and model.

    Raises:
        UsageError: there are no two such rows.
    """
    frame = words_of(lines, [WORD])
    made = []
    for (data, model), one in frame.groupby(["data", "model"], sort=False):
        ways = _ways(one)
        if len(ways) > 1:
            made.append(_drawing(ways, f"{data}, {model}"))
    if not made:
        raise UsageError(f"no two rows with variant={WORD}_… to compare")
    return made


def _ways(frame: pd.DataFrame) -> list[Way]:
    found = []
    for (row, variant), one in frame.groupby(["row", "variant"], sort=False):
        words = variant.split("_")[1:]
        control = one["regime"].iloc[0] != "slicenet"
        name = " ".join(words) if row or words else "run"
        sent = one["bytes_per_sample"].iloc[0]
        volume = f", {sent / 1000:.3g} kB a sample" if pd.notna(sent) else ""
        label = plain(f"{name}{' (control)' if control else ''}{volume}", 48)
        if (one["seat"] == "worst").any():
            one = one[one["seat"].isin(list(SHOWN))]
        else:
            one = one.assign(seat="worst")
        found.append(Way(label, control, one))
    return found


def _drawing(ways: Sequence[Way], where: str) -> Drawing:
    tall = LINE * len(ways) + 0.1
    with house_style():
        figure = new_figure(tall + 1.0)
        for place, (metric, label) in enumerate(METRICS.items()):
            axes = panel(figure, 2.35 + 2.45 * place, 0.62, 2.25, tall)
            _panel(axes, ways, metric)
            axes.set_title(label, loc="left", fontsize=TEXT, pad=5)
            names = [way.name for way in ways] if place == 0 else [""] * len(ways)
            axes.set_yticks(range(len(ways)), names)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(2.3 / 7.2, 0.02), ncols=3,
            frameon=False, fontsize=SMALL, borderaxespad=0,
        )  # fmt: skip
    title = f"Does slicing help? ({where})"
    return Drawing(f"slicing-{slug(where)}", title, _caption(ways), figure, _numbers(ways))


def _panel(axes: Axes, ways: Sequence[Way], metric: str) -> None:
    told: set[str] = set()
    for y, way in enumerate(ways):
        own = way.scores[way.scores["metric"] == metric]
        for _, score in own.iterrows():
            colour, mark, label = SHOWN[score["seat"]]
            low = y - 0.13 if score["seat"] == "worst" else y + 0.13
            axes.plot([score["low"], score["high"]], [low, low], color=colour, linewidth=0.9)
            axes.plot(
                score["value"], low, mark, color=colour, markersize=4.5, zorder=4,
                markerfacecolor=colour if score["verdict"] != "not shown to leak" else PAPER,
                label="" if label in told else label,
            )  # fmt: skip
            told.add(label)
            axes.plot(
                score["blind"], y, "|", color=MUTED, markersize=9, zorder=2,
                label="" if "blind" in told else "guessing blind",
            )  # fmt: skip
            told.add("blind")
            if way.control and score["seat"] == "worst":
                axes.axvline(
                    score["value"], color=INK, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1
                )
    axes.set_ylim(len(ways) - 0.5, -0.5)  # the first on top, none at an edge
    axes.grid(axis="x", color=GRID, linewidth=0.6, zorder=0)
    if metric == "identification":
        axes.set_xlim(-0.04, 1.04)
    else:
        axes.margins(x=0.1)


def _caption(ways: Sequence[Way]) -> str:
    said = ["To the right more leaks."]
    control = next((way for way in ways if way.control), None)
    if control is not None:
        said.append("The dotted line is the control, two parties that slice nothing.")
    worst = [
        (float(row["value"]), float(row["blind"]), way.name)
        for way in ways
        if not way.control
        for _, row in way.scores.iterrows()
        if row["metric"] == "psnr_db" and row["seat"] == "worst"
    ]
    if worst:
        low, high = min(worst), max(worst)
        said.append(
            f"Of the worst seat, least is rebuilt with {low[2]}: {low[0]:.1f} dB; most with {high[2]}: "
            f"{high[0]:.1f} dB; guessing {low[1]:.1f} dB."
        )
    said.append("Bars are 95 % intervals; hollow points are not shown to leak.")
    return " ".join(said)


def _numbers(ways: Sequence[Way]) -> pd.DataFrame:
    columns = ["metric", "seat", "value", "low", "high", "blind", "verdict", "bytes_per_sample"]
    return pd.concat([way.scores[columns].assign(way=way.name) for way in ways], ignore_index=True)[
        ["way", *columns]
    ]
