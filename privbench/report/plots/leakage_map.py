"""The leakage map: who sees what of a sliced network, and how much can be made of it."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from privbench.report.plots.crowd import Crowd, crowd_of
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.facts import Scale, about, leakage, number, stem_of, words
from privbench.report.plots.map_devices import RING, draw_devices
from privbench.report.plots.map_network import draw_network
from privbench.report.plots.marks import MARKS, mark_of
from privbench.report.plots.style import (
    INK,
    MUTED,
    PAPER,
    RAMP,
    SMALL,
    WIDTH,
    canvas,
    house_style,
    new_figure,
    plain,
    put,
)
from privbench.report.report import Report

HEIGHT, STRIP = 4.3, 0.78  # inches: all, and the strip of keys below
STEPS = 256  # of the colour bar
SAID = {"leaks": "leaks: surely above guessing", "by construction": "leaks by construction"}
"""Verdicts that the key explains."""


def leakage_map(
    report: Report, links: Report | None = None, coordinator: Report | None = None
) -> Drawing:
    """The sliced network and its devices, coloured by what each device can find out.

    Args:
        report: a run that attacked single devices (``threat=host`` or ``threat=owner``).
        links: a run of ``threat=link`` on the same crowd.
        coordinator: a run of ``threat=coordinator`` on the same crowd.

    Raises:
        UsageError: the report has no sliced network, or no score of a device.
    """
    crowd = crowd_of(report, links, coordinator)
    with house_style():
        figure = new_figure(HEIGHT)
        tall = HEIGHT - STRIP - 0.08
        draw_network(canvas(figure, 0.08, STRIP, 3.85, tall), crowd)
        draw_devices(canvas(figure, 4.15, STRIP + 0.05, 2.97, tall - 0.1), crowd)
        _keys(figure, crowd)
    title = f"Leakage map: {about(report, 90)}"
    caption = " ".join(
        [*_worst(report, crowd), *_others(report, links, coordinator), *_drawn(crowd)]
    )
    return Drawing(stem_of("leakage-map", report), title, caption, figure, crowd.numbers)


def _keys(figure: Figure, crowd: Crowd) -> None:
    """What colours and edges mean."""
    axes = canvas(figure, 0.08, 0.05, WIDTH - 0.16, STRIP - 0.1)
    score = next(spot.score for spot in crowd.devices.values() if spot.score)
    _bar(axes, crowd.scale, words(score))
    links = [link for link in crowd.links if link.score]
    spots = [*crowd.devices.values(), *links, *([crowd.coordinator] if crowd.coordinator else [])]
    present = [word for word in MARKS if word in {spot.verdict for spot in spots}]
    for place, word in enumerate(present):
        mark = mark_of(word)
        x, y = 4.1 + 1.5 * (place // 3), 0.47 - 0.215 * (place % 3)
        put(axes, Rectangle((x, y), 0.24, 0.13, facecolor=PAPER, edgecolor=mark.colour, linewidth=mark.width,
                      linestyle=mark.line, hatch=mark.hatch)
        )  # fmt: skip
        name = SAID.get(word, word)
        axes.text(x + 0.33, y + 0.065, name, va="center_baseline", fontsize=SMALL, color=INK)


def _bar(axes: Axes, scale: Scale, label: str) -> None:
    left, bottom, width, height = 0.05, 0.3, 3.4, 0.13
    limits = axes.get_xlim(), axes.get_ylim()
    bar = RAMP(np.linspace(0, 1, STEPS))[None]
    axes.imshow(bar, extent=(left, left + width, bottom, bottom + height), aspect="auto")
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.text(left, bottom + height + 0.05, label, va="bottom", fontsize=SMALL, color=INK)
    axes.text(
        left, bottom - 0.05, f"guessing: {scale.blind:.3g}", va="top", fontsize=SMALL, color=MUTED
    )
    whole = scale.top == 1
    for part in (0.4, 0.6, 0.8, 1.0):
        value = part if whole else scale.blind + part * (scale.top - scale.blind)
        share = (value - scale.blind) / (scale.top - scale.blind)
        if share > 0.3:
            axes.text(left + share * width, bottom - 0.05, f"{value:.3g}", va="top", fontsize=SMALL,
                      ha="right" if part == 1 else "center", color=MUTED)  # fmt: skip


def _worst(report: Report, crowd: Crowd) -> list[str]:
    """Who sees too much, in plain words."""
    scored = [spot for spot in crowd.devices.values() if spot.score]
    worst = max(scored, key=lambda spot: leakage(spot.score) if spot.score else 0.0)
    score = worst.score
    if score is None or not math.isfinite(score.value):
        return ["No device has a number: too few records were seen."]
    metric, quiet = score.metric, worst.verdict in ("not shown to leak", "too few")
    low, high = number(score.low, metric), number(score.high, metric)
    told = {
        "identification": "can pick out {} of the private records from what passes through it",
        "auc": "tells who was in the training data: it scores {}, where 1 is always right",
        "evaluator_top1": "rebuilds {} of the classes well enough to be recognised",
    }.get(metric, f"reaches {{}} ({metric})")
    return [
        f"Device {worst.label} sees most: with {plain(report.names.attack)} it "
        f"{told.format(number(score.value, metric))} (95 % interval {low} to {high}; "
        f"guessing gives {number(score.blind, metric)}).",
        *(["The protocol hands this over by construction."] if score.by_construction else []),
        *(["That is not shown to be more than guessing."] if quiet else []),
        *_missing(report, len(scored), len(crowd.devices)),
    ]


def _missing(report: Report, scored: int, devices: int) -> list[str]:
    """Why some devices have no score."""
    if scored == devices:
        return []
    reasons = "; ".join(dict.fromkeys(plain(refusal.reason, 120) for refusal in report.refusals))
    return [
        f"{scored} of {devices} devices were attacked{f'; of the others: {reasons}' if reasons else ''}."
    ]


def _others(report: Report, links: Report | None, coordinator: Report | None) -> list[str]:
    """Attacks that differ from the map's own."""
    return [
        f"{who} attacked with {plain(other.names.attack)}."
        for who, other in (("Links were", links), ("The coordinator was", coordinator))
        if other and other.names.attack != report.names.attack
    ]


def _drawn(crowd: Crowd) -> list[str]:
    """How to read it, and what is not shown."""
    lines = [
        "Left: the layers of the network; each block is the part that one device computes. "
        "Right: the devices and the links between them, wider where more bytes pass. "
        "Colour runs from what guessing gives to all; a thick edge means that the leak is proved."
    ]
    if not any(link.score for link in crowd.links) and crowd.links:
        lines.append("Links are grey: none was attacked.")
    if len(crowd.devices) > RING:
        lines.append("Only the devices that see most and least are named.")
    if crowd.left_out:
        lines.append(
            f"Of {len(crowd.links) + crowd.left_out} links the {len(crowd.links)} that say most are drawn."
        )
    return lines
