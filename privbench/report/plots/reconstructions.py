"""Originals beside what an attack made of them, and beside the best that guessing could do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from privbench.errors import UsageError
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.facts import about, leakage, number, seats_of, stem_of
from privbench.report.plots.style import (
    INK,
    MUTED,
    SMALL,
    TEXT,
    WIDTH,
    canvas,
    house_style,
    new_figure,
    plain,
)
from privbench.report.report import Report
from privbench.scoring.score import Pictures, Score

MARGIN, GAP, HEAD = 0.95, 0.2, 0.42  # inches: row names, between seats, above the images
LARGEST = 0.62  # inches an image is wide at most
FINEST = 128  # pixels to which small images are blown up, so that no viewer blurs them


@dataclass(frozen=True)
class Shown:
    """A seat's images and its score; ``place``: worst, median or best, empty where it is alone."""

    place: str
    pictures: Pictures
    score: Score | None


def reconstructions(report: Report) -> Drawing:
    """Images, rebuilt images and blind guesses of the seats that learn most, middling and least.

    Raises:
        UsageError: the run kept no images.
    """
    shown = _shown(report)
    if not shown:
        raise UsageError(
            f"reconstructions need images, and '{about(report)}' kept none: its records are no images, "
            "the attack rebuilds nothing, or it is an old run (again=true)"
        )
    images = min(6, max(len(each.pictures.true) for each in shown))
    room = (WIDTH - MARGIN - 0.1 - GAP * (len(shown) - 1)) / (len(shown) * images)
    size = min(room, LARGEST)
    mean = report.names.goal == "inversion"
    with house_style():
        figure = new_figure(HEAD + 3 * size + 0.12)
        axes = canvas(figure, 0, 0, WIDTH, HEAD + 3 * size + 0.12)
        limits = axes.get_xlim(), axes.get_ylim()
        _names(axes, size, mean)
        for place, each in enumerate(shown):
            _seat(axes, each, MARGIN + place * (images * size + GAP), size, images)
        axes.set(xlim=limits[0], ylim=limits[1])
    return Drawing(
        stem_of("reconstructions", report),
        f"What could be rebuilt: {about(report, 90)}",
        _caption(report, shown, mean),
        figure,
        _numbers(shown, images),
        private=True,  # a face rebuilt from a model is no less private than one rebuilt from traffic
    )


def _shown(report: Report) -> list[Shown]:
    """Worst, median and best of the seats that have images, without repeats."""
    scores = seats_of(report)
    kept = [
        p for p in report.pictures if p.true.ndim == 4 and len(p.true) and p.true.shape[1] in (1, 3)
    ]
    kept.sort(
        key=lambda p: leakage(scores[p.seat]) if p.seat in scores else -math.inf, reverse=True
    )
    if not kept:
        return []
    if len(kept) == 1:
        return [Shown("", kept[0], scores.get(kept[0].seat))]
    places = {"worst": 0, "median": len(kept) // 2, "best": len(kept) - 1}
    if len(kept) == 2:
        del places["median"]
    return [Shown(word, kept[i], scores.get(kept[i].seat)) for word, i in places.items()]


def _names(axes: Axes, size: float, mean: bool) -> None:
    """What each row of images is."""
    rows = ("class mean" if mean else "original", "rebuilt", "blind guess")
    for row, name in enumerate(rows):
        at = 0.06 + (2.5 - row) * size
        axes.text(MARGIN - 0.1, at, name, ha="right", va="center", fontsize=TEXT, color=INK)


def _seat(axes: Axes, shown: Shown, left: float, size: float, images: int) -> None:
    """Three rows of images below the seat's name and score."""
    pictures, top, wide = shown.pictures, 0.06 + 3 * size, images * size
    length = max(8, int(wide / 0.075))
    name = f"{shown.place}: {pictures.seat}" if shown.place else pictures.seat
    told = plain(_told(shown.score), length + 6)
    axes.text(left + 0.02, top + 0.22, plain(name, length), va="bottom", fontsize=TEXT, color=INK)
    axes.text(left + 0.02, top + 0.06, told, va="bottom", fontsize=SMALL, color=MUTED)
    axes.imshow(
        _mosaic(pictures, images), extent=(left, left + wide, 0.06, top), interpolation="none", aspect="auto"
    )  # fmt: skip


def _told(score: Score | None) -> str:
    if score is None or not math.isfinite(score.value):
        return "no score"
    value = number(score.value, score.metric)
    word = {"identification": "re-identified", "evaluator_top1": "recognised"}.get(score.metric)
    return f"{value} {word}" if word else f"{score.metric} {value}"


def _mosaic(pictures: Pictures, images: int) -> np.ndarray:
    """Three rows of images as one, RGBA, with clear lines between them."""
    tall, wide = pictures.true.shape[2:]
    factor = max(1, FINEST // max(tall, wide))
    tall, wide = tall * factor, wide * factor
    line = max(2, max(tall, wide) // 24)
    whole = np.zeros((3 * (tall + line), images * (wide + line), 4), dtype=np.uint8)
    for row, part in enumerate((pictures.true, pictures.guess, pictures.blind)):
        for column, image in enumerate(part[:images]):
            top, left = row * (tall + line) + line // 2, column * (wide + line) + line // 2
            grown = np.repeat(np.repeat(np.moveaxis(image, 0, -1), factor, axis=0), factor, axis=1)
            whole[top : top + tall, left : left + wide, :3] = grown
            whole[top : top + tall, left : left + wide, 3] = 255
    return whole


def _caption(report: Report, shown: Sequence[Shown], mean: bool) -> str:
    top = shown[0]
    what = "the mean image of each class" if mean else "private images"
    lines = [
        f"Top: {what}; middle: what {plain(report.names.attack)} made of what "
        f"{plain(top.pictures.seat, 30)} saw{' (the seat that learns most)' if len(shown) > 1 else ''}; "
        "bottom: the best guess by someone who saw nothing."
    ]
    if top.score and math.isfinite(top.score.value):
        lines.append(f"Score of that seat: {_told(top.score)}; guessing gives "
                     f"{number(top.score.blind, top.score.metric)}.")  # fmt: skip
    likeness = [s for s in report.scores if s.metric == "psnr_db" and s.seat == top.pictures.seat]
    if likeness and likeness[0].against_blind() in (
        "not shown to beat guessing",
        "worse than guessing",
    ):
        psnr = likeness[0]
        lines.append(
            f"Its images are {psnr.against_blind().replace('guessing', 'the blind guess')}: "
            f"{psnr.value:.1f} dB, where that has {psnr.blind:.1f} dB."
        )
    lines.append("The more the middle row tells that the bottom row does not, the more has leaked.")
    return " ".join(lines)


def _numbers(shown: Sequence[Shown], images: int) -> pd.DataFrame:
    """A row an image: the seat's score, and how far (root mean square, of 255) each guess is off."""
    rows = []
    for each in shown:
        pictures, score = each.pictures, each.score
        for i in range(min(images, len(pictures.true))):
            rows.append(
                {
                    "place": each.place, "seat": pictures.seat, "image": i,
                    "rms_rebuilt": _rms(pictures.guess, pictures.true, i),
                    "rms_blind": _rms(pictures.blind, pictures.true, i),
                    **{n: getattr(score, n, None) for n in ("metric", "value", "low", "high", "blind", "n")},
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _rms(guess: np.ndarray, true: np.ndarray, i: int) -> float:
    return float(np.sqrt(np.mean((guess[i].astype(float) - true[i].astype(float)) ** 2)))
