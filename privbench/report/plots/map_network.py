"""The sliced network of a leakage map: a column a layer, a block a slice."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle

from privbench.report.crowd import Block, Stage
from privbench.report.plots.crowd import Crowd, Spot
from privbench.report.plots.marks import paint
from privbench.report.plots.style import GRID, INK, MUTED, PAPER, SMALL, on, plain, put

HEAD = 0.42  # inches above the columns for names
FOOT = 0.36  # below, for who runs them
LINE = 0.11  # inches that a block needs for its number
NAMED = 9  # layers, beyond which only the ends are named


def draw_network(axes: Axes, crowd: Crowd) -> None:
    """Stem, body and tail from left to right, coloured by what the host of each block can see."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[1]
    count = len(crowd.stages)
    pitch = width / max(count, 1)
    broad = min(0.56 * pitch, 0.62)
    bottom, top = FOOT, height - HEAD
    blocks: dict[str, list[tuple[int, Block]]] = defaultdict(list)
    for number, block in enumerate(crowd.blocks):
        blocks[block.layer].append((number, block))
    for place, stage in enumerate(crowd.stages):
        left = (place + 0.5) * pitch - broad / 2
        if place:
            _flow(axes, left - pitch + broad, left, bottom, top)
        if stage.name in blocks:
            _column(axes, crowd, blocks[stage.name], (left, bottom, broad, top - bottom))
        else:
            _whole(axes, stage, (left, bottom, broad, top - bottom))
        if count <= NAMED:
            _name(axes, stage, (left + broad / 2, top), pitch, "center")
    if count > NAMED:
        _name(axes, crowd.stages[0], (0.5 * pitch - broad / 2, top), 1.0, "left")
        _name(axes, crowd.stages[-1], (width - 0.5 * pitch + broad / 2, top), 1.0, "right")
        middle = f"{count} layers in all"
        axes.text(
            width / 2, FOOT - 0.06, middle, ha="center", va="top", fontsize=SMALL, color=MUTED
        )


Box = tuple[float, float, float, float]
"""Left, bottom, width, height in inches."""


def _flow(axes: Axes, left: float, right: float, bottom: float, top: float) -> None:
    """Activations run from layer to layer."""
    inset = 0.12 * (top - bottom)
    corners = [(left, bottom), (left, top), (right, top - inset), (right, bottom + inset)]
    put(axes, Polygon(corners, facecolor=GRID, alpha=0.45, edgecolor="none", zorder=1))


def _column(axes: Axes, crowd: Crowd, blocks: list[tuple[int, Block]], box: Box) -> None:
    """The blocks of a layer, first channels on top."""
    left, bottom, width, height = box
    total = sum(max(block.units, 0) for _, block in blocks) or len(blocks)
    gap = min(0.035, 0.25 * height / len(blocks))
    top = bottom + height
    for number, block in blocks:
        tall = height * (block.units or 1) / total
        spot = crowd.devices[block.party]
        inner = (left, top - tall + gap / 2, width, max(tall - gap, 0.2 * tall))
        _block(axes, crowd, spot, number, inner)
        top -= tall


def _block(axes: Axes, crowd: Crowd, spot: Spot, number: int, box: Box) -> None:
    left, bottom, width, height = box
    roomy = height > 0.6 * LINE
    look = paint(spot, crowd.scale, 1.0 if roomy else 0.0)
    patch = Rectangle((left, bottom), width, height, zorder=3, **look)
    put(axes, patch, f"block-{number}")
    if height < LINE or width < 0.2:
        return
    face = crowd.scale.colour(spot.score)
    text = axes.text(
        left + width / 2, bottom + height / 2, spot.label, ha="center", va="center_baseline",
        fontsize=SMALL, color=on(face) if face else INK, zorder=4,
    )  # fmt: skip
    text.set_gid(f"block-{number}-label")


def _whole(axes: Axes, stage: Stage, box: Box) -> None:
    """A layer that nobody hosts alone: every owner runs stem and tail on its own device."""
    left, bottom, width, height = box
    empty: dict[str, Any] = {"facecolor": PAPER, "edgecolor": MUTED, "linewidth": 0.8, "zorder": 3}
    put(axes, Rectangle((left, bottom), width, height, **empty))
    words = {"stem": "run by each owner on its own samples", "tail": "run by each owner"}
    if stage.place in words and width > 0.14:
        axes.text(
            left + width / 2, bottom + height / 2, words[stage.place], rotation=90, ha="center",
            va="center", fontsize=SMALL, color=MUTED, zorder=4,
        )  # fmt: skip


def _name(axes: Axes, stage: Stage, at: tuple[float, float], room: float, side: str) -> None:
    """Name and size above a column, its place below; of long names the end says most."""
    length = max(4, int(room / 0.068))
    name, units = plain(stage.name, 200), f"{stage.channels} units"
    if len(name) > length:
        name = "…" + name[1 - length :]
    if len(units) > length:
        units = f"{stage.channels}"
    axes.text(at[0], at[1] + 0.2, name, ha=side, va="bottom", fontsize=SMALL, color=INK)
    axes.text(at[0], at[1] + 0.05, units, ha=side, va="bottom", fontsize=SMALL - 0.5, color=MUTED)
    axes.text(at[0], FOOT - 0.06, stage.place, ha=side, va="top", fontsize=SMALL, color=MUTED)
