"""Names beside a panel, each led to its point, none upon another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from privbench.report.plots.style import INK, SMALL


@dataclass(frozen=True)
class Tag:
    """What is written for the point at ``x``, ``y``."""

    text: str
    x: float
    y: float
    colour: str


def write_beside(axes: Axes, tags: Sequence[Tag], line: float) -> None:
    """Write the tags right of the axes, top to bottom as their points, ``line`` inches each."""
    figure = axes.get_figure(root=True)
    if figure is None or not tags:
        return
    tall = axes.get_position().height * figure.get_size_inches()[1]
    bottom, top = axes.get_ylim()
    order = sorted(tags, key=lambda tag: (-tag.y, tag.x, tag.text))
    wanted = [(tag.y - bottom) / (top - bottom) * tall for tag in order]
    for tag, height in zip(order, spread(wanted, line, tall), strict=True):
        at = height / tall
        point = axes.transData.transform((tag.x, tag.y))
        start = axes.transAxes.inverted().transform(point)
        axes.add_line(
            Line2D([start[0], 1.0, 1.03], [start[1], at, at], transform=axes.transAxes, color=tag.colour,
                   linewidth=0.5, alpha=0.55, clip_on=False, zorder=1.5)
        )  # fmt: skip
        axes.text(
            1.04, at, tag.text, transform=axes.transAxes, fontsize=SMALL, va="center", color=INK
        )


def spread(wanted: Sequence[float], line: float, tall: float) -> list[float]:
    """Falling heights as near as may be to the wanted ones, at least ``line`` apart, within ``tall``.

    Groups that touch are merged and stand around the mean of what they want.
    """
    groups: list[list[float]] = []  # members' wishes
    for height in wanted:
        groups.append([height])
        while len(groups) > 1 and _low(groups[-2], line, tall) - line < _high(
            groups[-1], line, tall
        ):
            last = groups.pop()
            groups[-1] += last
    return [_high(group, line, tall) - i * line for group in groups for i in range(len(group))]


def _high(group: Sequence[float], line: float, tall: float) -> float:
    """Where the first of a group stands."""
    extent = (len(group) - 1) * line
    middle = sum(group) / len(group)
    return min(max(middle + extent / 2, extent), max(tall, extent))


def _low(group: Sequence[float], line: float, tall: float) -> float:
    return _high(group, line, tall) - (len(group) - 1) * line
