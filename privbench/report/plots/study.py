"""All figures of a study: which there are, in the page's order, and as files for a paper."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from privbench.errors import StorageError, UsageError
from privbench.report.folder import lines_of
from privbench.report.plots.against import AXIS, against
from privbench.report.plots.along import KNOBS, along
from privbench.report.plots.costs import bills, loads, volumes
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.facts import measured
from privbench.report.plots.leakage_map import leakage_map
from privbench.report.plots.losses import losses
from privbench.report.plots.reconstructions import reconstructions
from privbench.report.plots.roc import roc
from privbench.report.plots.slicing import slicing
from privbench.report.plots.style import house_style
from privbench.report.plots.vulnerable import vulnerable
from privbench.report.report import Report

MAPS, REBUILT, CROWDS = 6, 12, 3
"""Figures of one kind at most."""


def drawings(
    reports: Sequence[Report], images: bool = True, lines: pa.Table | None = None
) -> tuple[Drawing, ...]:
    """Every figure that applies, in the order of the page; none is an answer too.

    Args:
        reports: those that are read whole.
        images: False leaves out every figure that shows records.
        lines: table rows of all runs, for curves; None = those of ``reports``.
    """
    rows = lines_of(reports) if lines is None else lines
    usable = [report for report in reports if measured(report)]
    maps = _some(usable, lambda report: _map(report, usable), MAPS)
    rebuilt = _some(usable, reconstructions, REBUILT) if images else []
    makers: list[Callable[[], Drawing]] = [
        partial(roc, usable),
        partial(vulnerable, usable),
        *(partial(against, usable, column) for column in AXIS if _differ(usable, column)),
        partial(losses, reports),
    ]
    whole = [drawing for make in makers if (drawing := _tried(make))]
    sliced = _crowds(reports)
    spent = [each for make in (volumes, loads, bills) for each in _some(sliced, make, CROWDS)]
    curves = [each for kind in KNOBS for each in _tried_all(partial(along, rows, kind))]
    curves += _tried_all(partial(slicing, rows))
    return tuple(_named([*maps, *rebuilt, *curves, *whole, *spent]))


def _differ(reports: Sequence[Report], column: str) -> bool:
    """Is there more than one value to draw against? Else points would stand one above the other."""
    return len({getattr(report.target, column) for report in reports} - {None}) > 1


def _crowds(reports: Sequence[Report]) -> list[Report]:
    """A report of each crowd: many attack the same one."""
    found: dict[object, Report] = {}
    for report in reports:
        if report.crowd is not None:
            found.setdefault(report.crowd, report)
    return list(found.values())


def write_figures(
    reports: Sequence[Report], folder: Path, images: bool = True, lines: pa.Table | None = None
) -> tuple[Path, ...]:
    """Write each figure as PDF and PNG, with its numbers as CSV, and say where; see ``drawings``.

    Raises:
        StorageError: the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for drawing in drawings(reports, images, lines):
            for kind, content in _files(drawing).items():
                file = folder / f"{drawing.name}.{kind}"
                beside = folder / f".{file.name}"
                beside.write_bytes(content)
                beside.replace(file)
                written.append(file)
    except OSError as cause:
        raise StorageError(
            f"cannot write figures into '{folder}': {cause}; expected a writable folder with space left"
        ) from cause
    return tuple(written)


def _files(drawing: Drawing) -> dict[str, bytes]:
    """A figure's files by their ending, without a day in them."""
    made = {}
    with house_style():
        for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
            buffer = io.BytesIO()
            drawing.figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
            made[kind] = buffer.getvalue()
    return {**made, "csv": drawing.numbers.to_csv(index=False).encode()}


def _map(report: Report, reports: Sequence[Report]) -> Drawing:
    """A report's map, with links and coordinator of the same crowd where they were attacked."""
    return leakage_map(report, _kin(report, reports, "link"), _kin(report, reports, "coordinator"))


def _kin(report: Report, reports: Sequence[Report], threat: str) -> Report | None:
    """A run of another threat on the same target, the same attack preferred."""
    kin = [
        other
        for other in reports
        if other.names.threat == threat and _target(other) == _target(report) and other.crowd
    ]
    same = [other for other in kin if other.names.attack == report.names.attack]
    return next(iter([*same, *kin]), None)


def _target(report: Report) -> tuple[object, ...]:
    names = report.names
    return (
        names.data,
        names.model,
        names.regime,
        names.defense,
        names.goal,
        report.run.seed,
        report.crowd,
    )


def _tried_all(make: Callable[[], list[Drawing]]) -> list[Drawing]:
    try:
        return make()
    except UsageError:
        return []


def _tried(make: Callable[[], Drawing]) -> Drawing | None:
    try:
        return make()
    except UsageError:
        return None


def _some(reports: Sequence[Report], make: Callable[[Report], Drawing], most: int) -> list[Drawing]:
    """The first ``most`` figures that apply."""
    made: list[Drawing] = []
    for report in reports:
        if len(made) < most and (drawing := _tried(partial(make, report))):
            made.append(drawing)
    return made


def _named(made: Sequence[Drawing]) -> list[Drawing]:
    """Figures of one name are numbered, so that no file hides another."""
    seen: dict[str, int] = {}
    named = []
    for drawing in made:
        count = seen[drawing.name] = seen.get(drawing.name, 0) + 1
        named.append(drawing if count == 1 else replace(drawing, name=f"{drawing.name}-{count}"))
    return named
