"""How every figure looks: colours that both themes can carry, one type face, no global state."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

INK, MUTED, GRID, PAPER = "#1b1f24", "#656d76", "#d5d9de", "#ffffff"
"""Colours that a page replaces by its own; no other part of a figure uses them."""
DARK_TEXT, LIGHT_TEXT = "#16191d", "#fdfdfd"  # on coloured areas, the same in both themes
TYPE = "DejaVu Sans"  # comes with matplotlib, so a figure is the same on every machine
WIDTH = 7.2  # inches, two columns of a journal; all figures alike, so that a page shows equal type
SMALL, TEXT = 7.0, 8.0  # points

STYLE = {
    "font.family": TYPE,
    "font.size": TEXT,
    "text.parse_math": False,  # names may hold dollars
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "hatch.color": MUTED,
    "hatch.linewidth": 0.5,
    "savefig.facecolor": "auto",
    "svg.fonttype": "none",
    "svg.hashsalt": "privbench",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}

RAMP = LinearSegmentedColormap.from_list(
    "leakage", [(0, "#bccbd8"), (0.35, "#dcb581"), (0.68, "#d8723a"), (1, "#9c1038")]
)
"""From what guessing gives to all: paler to darker, blue to red, so that no eye confuses the ends."""

COLOURS = ("#0f74b8", "#b87900", "#0c8f6c", "#c2508f", "#d05413", "#7a68c9", "#7d8590", "#8f5d2f")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "p")
LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-", (0, (5, 2)), (0, (1, 1)), (0, (7, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 3)), "-.", ":",
)  # fmt: skip
REGIMES = ("centralized", "fedavg", "dpsgd", "fedavg_dpsgd", "slicenet", "split", "given")


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save inside: our settings alone, whatever the user's own say."""
    with warnings.catch_warnings(), matplotlib.style.context(["default", STYLE]):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def new_figure(height: float) -> Figure:
    """An empty figure of the common width, ``height`` inches tall, that no window knows."""
    return Figure(figsize=(WIDTH, height), dpi=100)


def canvas(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """A part of a figure whose coordinates are inches."""
    axes = panel(figure, left, bottom, width, height)
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    return axes


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes placed in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def put(axes: Axes, patch: Patch, gid: str = "") -> None:
    """Place a patch on a canvas; ``gid`` is what a page may call it."""
    if gid:
        patch.set_gid(gid)
    patch.set_clip_on(False)
    axes.add_artist(patch)


def plain(text: str, length: int = 60) -> str:
    """A name as it may be drawn: one line, no control characters, cut with an ellipsis."""
    shown = "".join(c if c.isprintable() else " " for c in text).strip()
    return shown if len(shown) <= length else shown[: length - 1].rstrip() + "…"


def slug(text: str, length: int = 60) -> str:
    """A name as a file and an id may carry it."""
    kept = re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")
    return kept[:length].strip("-")


def look(regime: str, regimes: Sequence[str]) -> int:
    """Which colour, mark and line stand for a regime: ours always the same, others in order."""
    known = [*REGIMES, *dict.fromkeys(name for name in regimes if name not in REGIMES)]
    return known.index(regime) % len(COLOURS)


def on(colour: str) -> str:
    """The colour of text that is read on ``colour``."""
    red, green, blue = to_rgb(colour)
    return DARK_TEXT if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else LIGHT_TEXT


def ramp(share: float) -> str:
    """The colour at ``share`` of the way from guessing to all."""
    return to_hex(RAMP(share))
