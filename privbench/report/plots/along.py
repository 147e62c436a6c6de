"""How well inputs are rebuilt along a knob: depth, share of channels, epochs, size of a coalition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from privbench.errors import UsageError
from privbench.report.columns import SUMMARY
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.style import (
    COLOURS,
    GRID,
    LINES,
    MARKS,
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
from privbench.report.rows import frame_of

SERIES = 8  # lines that the eye still tells apart
METRICS = {"psnr_db": "PSNR, dB", "identification": "share re-identified"}
OF = ["data", "model", "regime", "defense", "threat", "attack", "series"]
"""What makes a line: all but the knob."""


class Knob(NamedTuple):
    """What a curve runs along: its column, the words below the axis, title and caption."""

    column: str
    axis: str
    title: str
    words: str


KNOBS = {
    "depth": Knob(
        "depth",
        "layers before what is seen",
        "Rebuilt inputs against the depth of the cut",
        "To the right more layers lie between the input and what is seen.",
    ),
    "share": Knob(
        "share_seen",
        "share of the layer's channels that is seen",
        "Rebuilt inputs against the share of channels seen",
        "To the right more channels of the first layer that leaves the owner are seen.",
    ),
    "epochs": Knob(
        "epochs_seen",
        "epochs observed",
        "Rebuilt inputs against the number of epochs observed",
        "To the right more of the training was watched.",
    ),
    "coalition": Knob(
        "coalition",
        "devices that collude",
        "Rebuilt inputs against the size of a coalition",
        "To the right more devices pool what they see.",
    ),
}
"""By the first word of a row's variant: ``depth_2``, ``share_input_3``, ``coalition_worst_25``."""


@dataclass(frozen=True)
class Curve:
    """One line: its name, and per metric a frame of x, value, low, high, blind, seats."""

    name: str
    points: dict[str, pd.DataFrame]


def along(lines: pa.Table, kind: str) -> list[Drawing]:
    """PSNR and identification along a knob, one figure a data set and model.

    Rows take part whose variant begins with the knob's word; what follows, less numbers, names the
    line. Seats of one run at one place are put together.

    Args:
        lines: table rows, of any runs.
        kind: a key of ``KNOBS``.

    Raises:
        UsageError: no two points are there.
    """
    frame = _rows(lines, kind)
    made = []
    for (data, model), one in frame.groupby(["data", "model"], sort=False):
        curves = _curves(one, KNOBS[kind])
        if any(len(points) > 1 for curve in curves for points in curve.points.values()):
            made.append(_drawing(curves, kind, f"{data}, {model}"))
    if not made:
        raise UsageError(f"no rows with variant={kind}_… give two points of a curve")
    return made


def words_of(lines: pa.Table, first: Sequence[str]) -> pd.DataFrame:
    """Scores of rows whose variant begins with one of some words."""
    frame = frame_of(lines)
    word = frame["variant"].fillna("").astype(str).str.split("_").str[0]
    measured = frame["status"].isin(["ok", "same_as"]) & frame["value"].notna()
    return frame[word.isin(list(first)) & measured & frame["metric"].isin(list(METRICS))]


def _rows(lines: pa.Table, kind: str) -> pd.DataFrame:
    """Rows of single seats with a place on the axis, and the name of their line."""
    frame = words_of(lines, [kind])
    frame = frame[~frame["seat"].isin(SUMMARY) & frame[KNOBS[kind].column].notna()].copy()
    parts = frame["variant"].astype(str).str.split("_").str[1:]
    frame["series"] = [" ".join(p for p in each if not p[:1].isdigit()) for each in parts]
    frame["defense"] = frame["defense"].fillna("")
    if kind == "share" and len(frame):  # deeper layers are another matter
        frame = frame[frame["depth"] == frame.groupby(OF)["depth"].transform("min")]
    frame["x"] = frame[KNOBS[kind].column].astype(float).round(3)
    return frame


def _curves(frame: pd.DataFrame, knob: Knob) -> list[Curve]:
    found = []
    for key, rows in frame.groupby(OF, sort=False):
        names = dict(zip(OF, key, strict=True))
        regime = names["regime"] + (f" +{names['defense']}" if names["defense"] else "")
        said = [
            regime,
            names["threat"],
            names["attack"] + (f" ({names['series']})" if names["series"] else ""),
        ]
        points = {
            metric: own.groupby("x")
            .agg(value=("value", "mean"), low=("low", "min"), high=("high", "max"),
                 blind=("blind", "mean"), seats=("value", "size"))
            .reset_index()
            for metric, own in rows.groupby("metric", sort=False)
        }  # fmt: skip
        found.append(Curve(plain(" · ".join(said), 70), points))
    return found[:SERIES]


def _drawing(curves: Sequence[Curve], kind: str, where: str) -> Drawing:
    knob = KNOBS[kind]
    below = 0.17 * (len(curves) + 1) + 0.1
    with house_style():
        figure = new_figure(2.75 + below)
        for place, (metric, label) in enumerate(METRICS.items()):
            axes = panel(figure, 0.5 + 3.5 * place, below + 0.5, 2.95, 2.0)
            _panel(axes, curves, metric)
            axes.set_title(label, loc="left", fontsize=TEXT, pad=5)
            axes.set_xlabel(knob.axis)
            if kind != "share":
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.45 / 7.2, below / (2.75 + below)),
            frameon=False, fontsize=SMALL, handlelength=3, borderaxespad=0, labelspacing=0.45,
        )  # fmt: skip
    name = f"along-{kind}-{slug(where)}"
    return Drawing(
        name, f"{knob.title} ({where})", _caption(curves, knob), figure, _numbers(curves)
    )


def _panel(axes: Axes, curves: Sequence[Curve], metric: str) -> None:
    shown = [(number, c.points[metric]) for number, c in enumerate(curves) if metric in c.points]
    every = [float(x) for _, points in shown for x in points["x"]]
    step = 0.012 * (max(every) - min(every) or 1.0)  # so that bars do not hide each other
    for number, points in shown:
        x = points["x"] + step * (number - (len(curves) - 1) / 2)
        colour = COLOURS[number % len(COLOURS)]
        axes.vlines(x, points["low"], points["high"], color=colour, linewidth=0.9, alpha=0.75)
        axes.plot(
            x, points["value"], color=colour, marker=MARKS[number % len(MARKS)], markersize=4,
            linewidth=1.2, linestyle=LINES[number % len(LINES)], label=curves[number].name, zorder=3,
            markeredgecolor=PAPER, markeredgewidth=0.4,
        )  # fmt: skip
    blind = pd.concat([points for _, points in shown]).groupby("x")["blind"].max()
    axes.plot(
        blind.index, blind, color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1,
        label="guessing blind", marker="" if len(blind) > 1 else "_", markersize=9,
    )  # fmt: skip
    axes.grid(color=GRID, linewidth=0.6, zorder=0)
    if metric == "identification":
        axes.set_ylim(-0.04, 1.04)
    else:
        axes.margins(y=0.12)


def _caption(curves: Sequence[Curve], knob: Knob) -> str:
    said = [f"Upwards more leaks. {knob.words}"]
    for curve in curves[:2]:
        points = curve.points.get("psnr_db")
        if points is not None and len(points) > 1:
            first, last = points.iloc[0], points.iloc[-1]
            said.append(
                f"{curve.name}: {first['value']:.1f} dB at {first['x']:g}, {last['value']:.1f} dB at "
                f"{last['x']:g}; guessing {last['blind']:.1f} dB."
            )
    said.append(
        "Bars are 95 % intervals, each by itself; where several seats or draws stand at one place the "
        "line is their mean, and the bar reaches from the lowest end of their intervals to the highest."
    )
    return " ".join(said)


def _numbers(curves: Sequence[Curve]) -> pd.DataFrame:
    return pd.concat(
        [
            points.assign(line=curve.name, metric=metric)
            for curve in curves
            for metric, points in curve.points.items()
        ],
        ignore_index=True,
    )[["line", "metric", "x", "value", "low", "high", "blind", "seats"]]
