"""All runs below a folder, as one table."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from privbench.errors import StorageError
from privbench.report.columns import COLUMNS
from privbench.report.report import Report, write_whole


class Gathered(NamedTuple):
    """Reports found, and a sentence for each that could not be read."""

    reports: tuple[Report, ...]
    damaged: tuple[str, ...]


def gather(folder: Path) -> Gathered:
    """Every run below a folder, ordered by study, row and seed; a study's copy counts once.

    Raises:
        StorageError: the folder is missing, or holds no report.
    """
    if not folder.is_dir():
        raise StorageError(f"there is no folder '{folder}'; expected one that holds runs (out=...)")
    reports, damaged, known = [], [], set()
    for file in sorted(folder.rglob("report.json")):
        try:
            report = Report.load(file)
        except StorageError as error:
            damaged.append(str(error))
            continue
        if report.run.fingerprint and report.run.fingerprint in known:
            continue
        known.add(report.run.fingerprint)
        reports.append(report)
    if not reports:
        found = f"; {len(damaged)} damaged: {damaged[0]}" if damaged else ""
        raise StorageError(f"no run lies below '{folder}'; expected report.json files{found}")
    reports.sort(key=lambda report: (report.names.study, report.names.row, report.run.seed))
    return Gathered(tuple(reports), tuple(damaged))


def table_of(reports: tuple[Report, ...]) -> pd.DataFrame:
    """Their tables, one below the other."""
    frames = [report.table() for report in reports]
    rows = [row for frame in frames for row in frame.to_dict("records")]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_table(reports: tuple[Report, ...], file: Path) -> None:
    """Write table.csv.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        write_whole(file, table_of(reports).to_csv(index=False))
    except OSError as cause:
        raise StorageError(
            f"cannot write '{file}': {cause}; expected a writable folder with space left"
        ) from cause
