"""A study on disk and on the screen: its rows while they run, its table at the end."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from privbench.errors import StorageError
from privbench.report.bars import WHOLE, Bars
from privbench.report.folder import table_of, write_table
from privbench.report.printed import print_table, print_warnings
from privbench.report.report import Report


def study_folder(out: Path, launch: str) -> Path:
    """Where the table of a launch lies: ``compare``, or ``compare+seed=3`` where words differ."""
    return out / "studies" / (launch or "sweep")


def save_row(report: Report, folder: Path, position: int) -> None:
    """Keep a row's report beside the others of its launch, failed ones too.

    Args:
        folder: of the launch's table.
    """
    name = re.sub(r"[^\w.-]+", "-", report.names.row or "row")[:80]
    report.save(folder / "rows" / f"{position:04d}-{name}")


def rows_of(out: Path, study: str) -> tuple[Report, ...]:
    """The reports of a study's last launch, in the table's order."""
    files = sorted((study_folder(out, study) / "rows").glob("*/report.json"))
    return tuple(Report.load(file) for file in files)


class StudyTable:
    """Called by the sweeper: shows progress, and writes the table when all rows are done.

    Args:
        out: folder of all runs.
        study: name of the launch's folder.
        jobs: number of rows that will run, 0 = not known.
    """

    def __init__(self, out: str, study: str = "", jobs: int = 0) -> None:
        self.out = Path(out)
        self.study = study
        self.jobs = jobs
        self._console = Console(stderr=True)
        self._progress: Bars | None = None
        self._done = 0
        self._since = 0.0

    def __reduce__(self) -> tuple[type[StudyTable], tuple[str, str]]:
        """What a parallel launcher sends to its workers: they know neither the screen nor the count."""
        return StudyTable, (str(self.out), self.study)

    def begin(self) -> None:
        """Forget the copies of an earlier launch (their runs stay) and show the bar."""
        rows = study_folder(self.out, self.study) / "rows"
        for file in rows.glob("*/*"):
            file.unlink()
        if self._console.is_terminal:
            self._progress = Bars(self._console)
            self._progress.move(WHOLE, "rows", 0, self.jobs)

    def moved(self, job: int, what: str, done: int, total: int) -> None:
        """Something is being done in the row of that number: so many rounds of so many."""
        if self._progress:
            self._progress.move(job, what, done, total)

    def ended(self, title: str, seconds: float, job: int | None = None) -> None:
        """One row more; ``job`` is its number, where it has one."""
        self._done += 1
        if self._progress:
            if job is not None:
                self._progress.end(job)
            self._progress.move(WHOLE, "rows", self._done, self.jobs)
            return
        of = f"/{self.jobs}" if self.jobs else ""
        line = f"[{self._done}{of}] {title} {seconds:.1f} s"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Write table.csv."""
        if self._progress:
            self._progress.close()
        finish(self.out, self.study)

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """As ``begin``, for a launcher of Hydra's."""
        self.begin()

    def on_job_start(self, config: Any, **_: Any) -> None:
        """A row starts."""
        self._since = time.perf_counter()

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        """As ``ended``."""
        self.ended(title(config), time.perf_counter() - self._since)

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """As ``close``."""
        self.close()

    def on_run_start(self, config: Any, **_: Any) -> None:
        """A single run: nothing to do."""

    def on_run_end(self, config: Any, **_: Any) -> None:
        """A single run: nothing to do."""


def finish(out: Path, study: str) -> None:
    """Write a study's table.csv, or say why not."""
    reports = rows_of(out, study)
    if not reports:
        raise StorageError(f"study={study} left no row in '{study_folder(out, study)}'")
    write_table(reports, study_folder(out, study) / "table.csv")


def show(out: Path, study: str, console: Console) -> int:
    """Print a study's table and where it lies; the number of failed rows."""
    reports = rows_of(out, study)
    print_table(table_of(reports), console, f"{heading(study)}: how much each seat learns")
    print_warnings(reports, console)
    failed = sum(report.status == "failed" for report in reports)
    if failed:
        console.print(f"{failed} of {len(reports)} rows failed; their reasons stand in the table.")
    console.print(f"Every score: {study_folder(out, study) / 'table.csv'}", soft_wrap=True)
    return failed


def heading(launch: str) -> str:
    """What a launch is called on page and screen: of a sweep, over what; its folder has every word."""
    if launch.partition("+")[0] != "sweep":
        return launch.replace("+", " · ") or "one run"
    swept = re.findall(r"\+([\w.]+)=[^+]*,", launch)
    return f"sweep over {' and '.join(swept)}" if swept else "sweep"


def title(config: Any) -> str:
    """What a row is called while it runs: its name in a study, its words in a sweep."""
    words = [word for word in config.hydra.overrides.task if not word.startswith("folder=")]
    return str(config.row) or " ".join(word.lstrip("+") for word in words) or "run"
