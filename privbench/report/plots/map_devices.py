"""The devices of a leakage map and the links between them: a ring, or a grid where they are many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
from matplotlib.path import Path

from privbench.report.plots.crowd import Crowd, Link, Spot
from privbench.report.plots.facts import leakage
from privbench.report.plots.marks import mark_of, paint
from privbench.report.plots.style import INK, MUTED, PAPER, SMALL, on, put

RING = 48
"""Devices that still have room around a ring; more stand in a grid."""
VALUED = 16
"""Devices beside which the value is written."""
SIGN = {"boxstyle": "square,pad=0.15", "facecolor": PAPER, "edgecolor": INK, "linewidth": 0.5}
"""Behind the name of a device that covers others."""
THIN, THICK = 0.5, 2.6  # points, for the least and the most traffic


@dataclass(frozen=True)
class Places:
    """Where devices stand, in inches, and how large they are."""

    of: Mapping[str, tuple[float, float]]
    radius: float
    middle: tuple[float, float]
    ring: bool


def places_of(names: list[str], width: float, height: float) -> Places:
    """Around a ring, clockwise from the top, or row by row."""
    middle = (width / 2, height / 2)
    if len(names) <= RING:
        radius = min(0.17, 2.3 / max(len(names), 1) + 0.03)
        margin = radius + (0.3 if len(names) <= VALUED else 0.06)
        around = min(width, height) / 2 - margin
        angles = [math.pi / 2 - 2 * math.pi * i / len(names) for i in range(len(names))]
        spots = [
            (middle[0] + around * math.cos(a), middle[1] + around * math.sin(a)) for a in angles
        ]
        return Places(dict(zip(names, spots, strict=True)), radius, middle, True)
    across = math.ceil(math.sqrt(len(names) * width / height))
    down = math.ceil(len(names) / across)
    pitch = min(width / across, height / down)
    left, top = (width - pitch * across) / 2, height - (height - pitch * down) / 2
    spots = [
        (left + pitch * (i % across + 0.5), top - pitch * (i // across + 0.5))
        for i in range(len(names))
    ]
    return Places(dict(zip(names, spots, strict=True)), 0.32 * pitch, middle, False)


def draw_devices(axes: Axes, crowd: Crowd) -> None:
    """Links first, devices above them."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[1]
    room = 0.34 if crowd.coordinator else 0.0
    places = places_of(list(crowd.devices), width, height - room)
    _links(axes, crowd, places)
    for name, spot in crowd.devices.items():
        _device(axes, crowd, spot, places, places.of[name])
    if not places.ring:
        _extremes(axes, crowd, places)
    if crowd.coordinator:
        _coordinator(axes, crowd, crowd.coordinator, (width / 2, height - room / 2))


def _links(axes: Axes, crowd: Crowd, places: Places) -> None:
    logs = [math.log(link.nbytes) for link in crowd.links if link.nbytes > 0]
    low, high = (min(logs), max(logs)) if logs else (0.0, 0.0)
    for order, link in enumerate(crowd.links):
        if link.one not in places.of or link.other not in places.of:
            continue
        share = (
            (math.log(link.nbytes) - low) / (high - low) if link.nbytes > 0 and high > low else 0.5
        )
        wide = (THIN + share * (THICK - THIN)) * (1.0 if places.ring else 0.5)
        _link(axes, crowd, link, places, wide, 1 + order / (len(crowd.links) + 1))


def _link(axes: Axes, crowd: Crowd, link: Link, places: Places, wide: float, order: float) -> None:
    """A curve that bends towards the middle of the ring; straight on a grid."""
    one, other = places.of[link.one], places.of[link.other]
    bend = 0.45 if places.ring else 0.0
    half = ((one[0] + other[0]) / 2, (one[1] + other[1]) / 2)
    knot = tuple(h + bend * (m - h) for h, m in zip(half, places.middle, strict=True))
    colour, share = crowd.scale.colour(link.score), crowd.scale.share(link.score)
    patch = PathPatch(
        Path([one, (knot[0], knot[1]), other], [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
        facecolor="none", edgecolor=colour or MUTED, linewidth=wide if colour else 0.6 * wide,
        alpha=0.4 if share is None else 0.5 + 0.45 * share, zorder=order, capstyle="butt",
        linestyle=mark_of(link.verdict).line,
    )  # fmt: skip
    put(axes, patch, link.gid)


def _device(axes: Axes, crowd: Crowd, spot: Spot, places: Places, at: tuple[float, float]) -> None:
    small = places.radius < 0.07
    patch = Circle(at, places.radius, zorder=5, **paint(spot, crowd.scale, 0.4 if small else 1.0))
    put(axes, patch, spot.gid)
    if not places.ring:
        return
    face = crowd.scale.colour(spot.score)
    text = axes.text(
        *at, spot.label, ha="center", va="center_baseline", zorder=6,
        fontsize=SMALL if places.radius > 0.12 else 5.0, color=on(face) if face else INK,
    )  # fmt: skip
    text.set_gid(f"{spot.gid}-label")
    if len(crowd.devices) <= VALUED and spot.score and math.isfinite(spot.score.value):
        _value(axes, spot, f"{spot.score.value:.2f}", places, at)


def _value(axes: Axes, spot: Spot, value: str, places: Places, at: tuple[float, float]) -> None:
    """The number beside a device, outside the ring."""
    away = (at[0] - places.middle[0], at[1] - places.middle[1])
    length = math.hypot(*away) or 1.0
    step = places.radius + 0.15
    text = axes.text(
        at[0] + away[0] / length * step * 1.1, at[1] + away[1] / length * step, value,
        ha="center", va="center", fontsize=SMALL - 0.5, color=MUTED, zorder=6,
    )  # fmt: skip
    text.set_gid(f"{spot.gid}-value")


def _extremes(axes: Axes, crowd: Crowd, places: Places) -> None:
    """Names of the device that sees most and of the one that sees least."""
    scored = [spot for spot in crowd.devices.values() if spot.score]
    scored.sort(key=lambda spot: leakage(spot.score) if spot.score else 0.0)
    for spot in {spot.name: spot for spot in (scored[0], scored[-1])}.values():
        x, y = places.of[spot.name]
        text = axes.text(
            x, y + places.radius + 0.03, spot.label, ha="center", va="bottom", fontsize=SMALL, zorder=8,
            color=INK, bbox=SIGN,
        )  # fmt: skip
        text.set_gid(f"{spot.gid}-label")


def _coordinator(axes: Axes, crowd: Crowd, spot: Spot, at: tuple[float, float]) -> None:
    value = spot.score.value if spot.score else math.nan
    face = crowd.scale.colour(spot.score)
    patch = FancyBboxPatch(
        (at[0] - 0.55, at[1] - 0.1), 1.1, 0.2, boxstyle="round,pad=0,rounding_size=0.06", zorder=5,
        **paint(spot, crowd.scale),
    )  # fmt: skip
    put(axes, patch, spot.gid)
    label = f"{spot.label} {value:.2f}" if math.isfinite(value) else spot.label
    text = axes.text(
        *at, label, ha="center", va="center_baseline", fontsize=SMALL, zorder=6,
        color=on(face) if face else INK,
    )  # fmt: skip
    text.set_gid(f"{spot.gid}-label")
