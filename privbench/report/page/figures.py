"""Figures as the page shows them, and what it says about each part of a leakage map."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from privbench.report.columns import SUMMARY
from privbench.report.page.png import Album
from privbench.report.plots import Drawing
from privbench.report.plots.facts import seats_of, stem_of, verdict
from privbench.report.plots.style import slug
from privbench.report.report import Report

IMAGES = 4
"""Images that a panel shows of a seat."""
KINDS = (
    "leakage-map-", "reconstructions-", "roc", "vulnerable", "leakage-accuracy", "leakage-bytes", "losses",
    "volumes-", "loads-", "costs-", "along-", "slicing-",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A drawing, ready for the template. ``kind`` is the start of its name."""

    name: str
    kind: str
    title: str
    caption: str
    svg: Markup
    numbers: str  # CSV


def figures_of(drawings: Sequence[Drawing], images: bool) -> tuple[Figure, ...]:
    """Drawings as figures; private ones only where images are wanted."""
    return tuple(
        Figure(
            drawing.name,
            next((kind for kind in KINDS if drawing.name.startswith(kind)), "other"),
            drawing.title,
            drawing.caption,
            Markup(drawing.svg()),  # made by ElementTree, which escapes names
            drawing.numbers.to_csv(index=False),
        )
        for drawing in drawings
        if images or not drawing.private
    )


def panels(
    drawings: Sequence[Drawing], reports: Sequence[Report], album: Album, images: bool
) -> dict[str, dict[str, Any]]:
    """Of each map: what to say about each part (by its ``data-gid``), and whose each block is."""
    return {
        drawing.name: _panel(drawing, _report_of(drawing, reports), reports, album, images)
        for drawing in drawings
        if drawing.name.startswith(KINDS[0])
    }


def _report_of(drawing: Drawing, reports: Sequence[Report]) -> Report | None:
    """The report that a map was drawn of: of equal names the one with the same values."""
    numbers = drawing.numbers
    values = numbers[numbers["kind"] == "device"].set_index("name")["value"].dropna()
    for report in reports:
        if report.crowd and drawing.name.startswith(stem_of("leakage-map", report)):
            scores = seats_of(report)
            if all(name in scores and scores[name].value == v for name, v in values.items()):
                return report
    return None


def _panel(
    drawing: Drawing, report: Report | None, reports: Sequence[Report], album: Album, images: bool
) -> dict[str, Any]:
    parts = {_gid(row): _part(row) for row in drawing.numbers.to_dict("records")}
    if report is None or report.crowd is None:
        return {"attack": "", "parts": parts, "blocks": {}}
    slices: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for block in report.crowd.blocks:
        slices[slug(block.party)][block.layer] += block.units
    for gid, layers in slices.items():
        if gid in parts:
            parts[gid]["slice"] = [f"{units} units of {layer}" for layer, units in layers.items()]
    for gid, others in _others(report, reports).items():
        if gid in parts:
            parts[gid]["others"] = others
    if images:
        for pictures in report.pictures:
            if slug(pictures.seat) in parts:
                rows = [pictures.true, pictures.guess, pictures.blind]
                kept = [[album.add(image) for image in row[:IMAGES]] for row in rows]
                if all(number is not None for row in kept for number in row):
                    parts[slug(pictures.seat)]["pictures"] = kept
    blocks = {f"block-{i}": slug(block.party) for i, block in enumerate(report.crowd.blocks)}
    names = report.names
    attack = names.attack + (f" ({names.variant})" if names.variant else "")
    return {"attack": attack, "parts": parts, "blocks": blocks}


def _gid(row: Mapping[str, Any]) -> str:
    """What the figure calls a device, a link, the coordinator."""
    name = str(row["name"])
    if row["kind"] != "link":
        return slug(name)
    return "-".join(["link", *(slug(end.removeprefix("device-")) for end in name.split("–"))])


def _part(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the map's numbers, as JSON can say it."""
    return {name: value for name, value in row.items() if not _missing(value)}


def _missing(value: Any) -> bool:
    return (
        value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value))
    )


def _others(report: Report, reports: Sequence[Report]) -> dict[str, list[dict[str, Any]]]:
    """What other runs on the same crowd say about each device."""
    told: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for other in reports:
        same = other.names.threat in ("host", "owner") and other.crowd == report.crowd
        if other is report or not same or other.names.defense != report.names.defense:
            continue
        names = other.names
        attack = names.attack + (f" ({names.variant})" if names.variant else "")
        for seat, score in seats_of(other).items():
            if seat not in SUMMARY and math.isfinite(score.value):
                told[slug(seat)].append(
                    {"threat": names.threat, "attack": attack, "metric": score.metric,
                     "value": score.value, "verdict": verdict(other, score)}
                )  # fmt: skip
    return told
