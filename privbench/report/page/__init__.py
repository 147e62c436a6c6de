"""report.html: one file with everything in it, that opens from disk and asks no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from privbench.errors import PrivbenchError, StorageError
from privbench.report.chosen import read_whole
from privbench.report.folder import lines_of
from privbench.report.page.answers import answers
from privbench.report.page.figures import figures_of, panels
from privbench.report.page.made import making
from privbench.report.page.png import Album
from privbench.report.page.table import sent
from privbench.report.page.words import COLUMNS
from privbench.report.plots import Drawing, drawings
from privbench.report.report import Report, warnings_of, write_whole

Draw = Callable[[], Sequence[Drawing]]
"""Gives the figures of a study, private ones too."""
SCRIPTS = ("theme.js", "table.js", "figures.js", "map.js")


def write_page(
    reports: Sequence[Report],
    file: Path,
    title: str,
    *,
    images: bool = True,
    problems: Sequence[str] = (),
    draw: Draw | None = None,
) -> Path:
    """Write the page, whole or not at all, and say where.

    Raises:
        StorageError: the file cannot be written.
    """
    page = render(reports, title, images=images, problems=problems, draw=draw)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, page)
    except OSError as cause:
        raise StorageError(
            f"cannot write '{file}': {cause}; expected a writable folder with space left"
        ) from cause
    return file


def render(
    reports: Sequence[Report],
    title: str,
    *,
    images: bool = True,
    problems: Sequence[str] = (),
    draw: Draw | None = None,
) -> str:
    """The whole page.

    Args:
        reports: runs in the table's order; of those that ``gather`` found only some are read whole.
        images: False keeps every private image out.
        problems: a sentence for each file that could not be read.
        draw: gives the figures of these reports, where they are drawn elsewhere too.
    """
    lines = lines_of(reports)
    whole, unread = read_whole(reports)
    album, told = Album(), [*problems, *unread]
    made, maps = _figures(whole, lines, album, images, told, draw)
    thing = "image" if any(report.pictures for report in whole) else "record"
    rows = sent(lines)
    data = {
        "columns": rows.columns,
        "count": rows.shown,
        "maps": maps,
        "images": album.images,
        "numbers": {figure.name: figure.numbers for figure in made},
        "groups": COLUMNS,
    }
    script = "\n".join(_text(name) for name in SCRIPTS)
    return _environment().get_template("page.html.j2").render(
        title=title,
        answers=answers(lines, thing),
        thing=thing,
        figures=made,
        making=making(whole, lines),
        warnings=warnings_of(whole),
        rows=rows,
        runs=len(reports),
        whole=whole,
        problems=told,
        images=images,
        data=_json(data),
        style=Markup(_text("page.css")),  # our own file
        script=Markup(script),  # our own files
        digest=_digest(script),
    )  # fmt: skip


def _figures(
    reports: Sequence[Report],
    lines: pa.Table,
    album: Album,
    images: bool,
    told: list[str],
    draw: Draw | None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Figures and what maps say; a sentence where none can be drawn."""
    try:
        drawn = drawings(reports, images, lines) if draw is None else draw()
        return figures_of(drawn, images), panels(drawn, reports, album, images)
    except (PrivbenchError, ValueError, ArithmeticError, LookupError, RuntimeError) as cause:
        told.append(
            f"no figure could be drawn ({type(cause).__name__}: {cause}); the table is whole"
        )
        return (), {}


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("privbench.report.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _text(name: str) -> str:
    return (files("privbench.report.page") / name).read_text()


def _digest(script: str) -> str:
    """What the page's policy calls its only script: any other is refused by the browser."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(data: object) -> Markup:
    """JSON that no name can break out of."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # every sign that HTML knows is written as its number
