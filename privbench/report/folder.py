"""All runs below a folder, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, overload

import pandas as pd
import pyarrow as pa

from privbench.errors import StorageError
from privbench.report.index import index
from privbench.report.pictures import load_pictures
from privbench.report.report import Report, write_whole
from privbench.report.rows import SCHEMA, csv_of, frame_of, height, rows_of


class Stored(Sequence[Report]):
    """Runs on disk: their rows are at hand, a whole report is read when asked for.

    Args:
        files: of each, its report.json.
        rows: of all, in the same order, with the columns of table.csv, ``note`` and ``path``.
    """

    def __init__(self, files: Sequence[Path], rows: pa.Table) -> None:
        self.files = tuple(files)
        self.rows = rows

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, place: int) -> Report: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Report, ...]: ...

    def __getitem__(self, place: int | slice) -> Report | tuple[Report, ...]:
        """Read it, without its pictures where those are damaged.

        Raises:
            StorageError: the file was damaged since.
        """
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        try:
            return Report.load(self.files[place])
        except StorageError:
            return Report.load(self.files[place], pictures=False)

    def problems(self, place: int) -> tuple[str, ...]:
        """What cannot be read of a run that is otherwise whole: its pictures."""
        try:
            load_pictures(self.files[place].parent)
        except StorageError as error:
            return (str(error),)
        return ()


class Gathered(NamedTuple):
    """Reports found, and a sentence for each that could not be read."""

    reports: Stored
    damaged: tuple[str, ...]


def gather(folder: Path) -> Gathered:
    """Every run below a folder, ordered by study, row and seed; a study's copy counts once.

    Raises:
        StorageError: the folder is missing, or holds no report.
    """
    if not folder.is_dir():
        raise StorageError(f"there is no folder '{folder}'; expected one that holds runs (out=...)")
    rows, damaged = index(folder)
    if not rows.num_rows:
        found = f"; {len(damaged)} damaged: {damaged[0]}" if damaged else ""
        raise StorageError(f"no run lies below '{folder}'; expected report.json files{found}")
    files = [folder / path for path in rows["path"].unique().to_pylist()]
    return Gathered(Stored(files, rows), damaged)


def lines_of(reports: Sequence[Report]) -> pa.Table:
    """Their table rows, one report below the other, with each row's ``note`` and ``run``: the place
    of its report."""
    if isinstance(reports, Stored):
        rows = reports.rows
        runs = rows["path"].combine_chunks().dictionary_encode().indices
        return rows.select(SCHEMA.names).append_column("run", runs.cast(pa.int32()))
    runs = [place for place, report in enumerate(reports) for _ in range(height(report))]
    return rows_of(reports).append_column("run", pa.array(runs, pa.int32()))


def table_of(reports: Sequence[Report]) -> pd.DataFrame:
    """Their tables, one below the other."""
    return frame_of(lines_of(reports))


def write_table(reports: Sequence[Report], file: Path) -> None:
    """Write table.csv.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        write_whole(file, csv_of(lines_of(reports)))
    except OSError as cause:
        raise StorageError(
            f"cannot write '{file}': {cause}; expected a writable folder with space left"
        ) from cause
