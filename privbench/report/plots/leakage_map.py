"""The leakage map: who sees what of a sliced network, and how much can be made of it."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from privbench.report.plots.crowd import Crowd, Spot, crowd_of
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.facts import Scale, about, leakage, number, stem_of, words
from privbench.report.plots.map_devices import RING, draw_devices
from privbench.report.plots.map_network import draw_network
from privbench.report.plots.marks import MARKS, mark_of
from privbench.report.plots.style import (
    INK,
    MUTED,
    PAPER,
    SMALL,
    WIDTH,
    canvas,
    house_style,
    new_figure,
    ramp,
)
from privbench.report.report import Report

HEIGHT, STRIP = 4.5, 0.78  # inches: all, and the strip of keys below
STEPS = 48  # of the colour bar


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
    caption = _caption(report, crowd)
    return Drawing(stem_of("leakage-map", report), title, caption, figure, crowd.numbers)


def _keys(figure: Figure, crowd: Crowd) -> None:
    """What colours and edges mean."""
    axes = canvas(figure, 0.08, 0.05, WIDTH - 0.16, STRIP - 0.1)
    score = next(spot.score for spot in crowd.devices.values() if spot.score)
    _bar(axes, crowd.scale, words(score))
    spots = [*crowd.devices.values(), *([crowd.coordinator] if crowd.coordinator else [])]
    present = {spot.verdict for spot in spots}
    left = 4.1
    for row, word in enumerate([word for word in MARKS if word in present][:4]):
        mark = mark_of(word)
        x, y = left + 1.5 * (row % 2), 0.42 - 0.26 * (row // 2)
        axes.add_patch(
            Rectangle((x, y), 0.24, 0.14, facecolor=PAPER, edgecolor=mark.colour, linewidth=mark.width,
                      linestyle=mark.line, hatch=mark.hatch)
        )  # fmt: skip
        axes.text(x + 0.34, y + 0.07, word, va="center", fontsize=SMALL, color=INK)


def _bar(axes: Axes, scale: Scale, label: str) -> None:
    left, bottom, width, height = 0.05, 0.3, 3.4, 0.13
    for i in range(STEPS):
        axes.add_patch(
            Rectangle((left + width * i / STEPS, bottom), 1.03 * width / STEPS, height,
                      facecolor=ramp(i / (STEPS - 1)), edgecolor="none")
        )  # fmt: skip
    axes.text(left, bottom + height + 0.05, label, va="bottom", fontsize=SMALL, color=INK)
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = scale.blind + share * (scale.top - scale.blind)
        text = f"{value:.3g}" if share else f"{value:.3g} (guessing)"
        side = "left" if share == 0 else "right" if share == 1 else "center"
        axes.text(left + share * width, bottom - 0.05, text, va="top", ha=side, fontsize=SMALL,
                  color=MUTED)  # fmt: skip


def _caption(report: Report, crowd: Crowd) -> str:
    """Who sees too much, in plain words."""
    scored = [spot for spot in crowd.devices.values() if spot.score]
    worst = max(scored, key=lambda spot: leakage(spot.score) if spot.score else 0.0)
    return " ".join([*_worst(report, worst, len(scored), len(crowd.devices)), *_drawn(crowd)])


def _worst(report: Report, worst: Spot, scored: int, devices: int) -> list[str]:
    score = worst.score
    if score is None or not math.isfinite(score.value):
        return ["No device has a number: too few records were seen."]
    metric = score.metric
    low, high = number(score.low, metric), number(score.high, metric)
    told = {
        "identification": "can pick out {} of the private records from what passes through it",
        "auc": "tells who was in the training data: it scores {}, where 1 is always right",
        "evaluator_top1": "rebuilds {} of the classes well enough to be recognised",
    }.get(metric, f"reaches {{}} ({metric})")
    return [
        f"Device {worst.label} sees most: with {report.names.attack} it "
        f"{told.format(number(score.value, metric))} (95 % interval {low} to {high}; "
        f"guessing gives {number(score.blind, metric)}).",
        f"{scored} of {devices} devices were attacked." if scored < devices else "",
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
