"""How a verdict looks without colour, and how a spot of a map is filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from privbench.report.plots.crowd import Spot
from privbench.report.plots.facts import Scale
from privbench.report.plots.style import INK, MUTED, PAPER


@dataclass(frozen=True)
class Mark:
    """The edge of a device, block or coordinator."""

    width: float
    line: str | tuple[int, tuple[float, ...]] = "-"
    colour: str = INK
    hatch: str | None = None


LEAKS = Mark(1.8)
MARKS = {
    "leaks": LEAKS,
    "as centralized": LEAKS,
    "by construction": Mark(1.8, (0, (4, 0.8, 0.8, 0.8))),
    "not shown to leak": Mark(0.9, (0, (2.4, 1.6))),
    "too few": Mark(0.9, (0, (0.8, 1.2))),
    "not attacked": Mark(0.6, colour=MUTED, hatch="/////"),
    "hosts nothing": Mark(0.6, colour=MUTED),
}
"""By verdict; thick means that it leaks."""


def mark_of(verdict: str) -> Mark:
    """The edge of a verdict."""
    return MARKS.get(verdict, MARKS["too few"])


def paint(spot: Spot, scale: Scale, thin: float = 1.0) -> dict[str, Any]:
    """Face, edge and hatch of a patch; ``thin`` scales the edge where there is little room."""
    mark = mark_of(spot.verdict)
    return {
        "facecolor": scale.colour(spot.score) or PAPER,
        "edgecolor": mark.colour,
        "linewidth": mark.width * thin,
        "linestyle": mark.line,
        "hatch": mark.hatch,
    }
