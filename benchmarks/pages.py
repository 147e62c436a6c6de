"""The page over the compare study, the page over thousands of runs, and what a dashboard costs."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

from compare import STUDY, Comparison, program
from figure import Figure
from launch import launch

from privbench.report.study import study_folder

MIB = 2**20
MANY = 5_000  # stored runs
RUNS = 5  # of what is quick


class Pages:
    """What is measured on the runs of a comparison.

    Args:
        whole: its cold run is made if need be.
        folder: empty; stored runs are copied into it.
    """

    def __init__(self, whole: Comparison, folder: Path) -> None:
        self.whole = whole
        self.folder = folder

    def page(self) -> tuple[Figure, ...]:
        """``privbench report`` over the compare study, as a whole process."""
        _ = self.whole.first
        rows = study_folder(self.whole.out, STUDY)
        times = [
            launch([*program(), "report", str(rows)], self.folder).seconds for _ in range(RUNS)
        ]
        size = (rows / "report.html").stat().st_size / MIB
        return (
            _seconds("`privbench report` over the compare study", 3, times),
            _size("its page", 3, size),
        )

    def many(self) -> tuple[Figure, ...]:
        """The same over thousands of stored runs: with the index, and the first time without."""
        _ = self.whole.first
        stored = self.folder / "many"
        _multiply(study_folder(self.whole.out, STUDY) / "rows", stored)
        words = [*program(), "report", str(stored)]
        first = launch(words, self.folder).seconds
        times = [launch(words, self.folder).seconds for _ in range(3)]
        size = (stored / "report.html").stat().st_size / MIB
        shutil.rmtree(stored)
        return (
            _seconds(
                f"`privbench report` over {MANY:,} stored runs",
                5,
                times,
                f"{first:.1f} s the first time",
            ),
            _size("its page", 10, size),
        )

    def dashboard(self) -> tuple[Figure, ...]:
        """What ``sink=wandb`` adds to the compare study, all rows trained anew, in turn."""
        pairs = []
        for number in range(3):
            plain = launch([*program(), f"out=plain-{number}"], self.folder).seconds
            shown = launch([*program(), "sink=wandb", f"out=shown-{number}"], self.folder).seconds
            pairs.append(shown / plain - 1)
            for kind in ("plain", "shown"):
                shutil.rmtree(self.folder / f"{kind}-{number}")
        more = statistics.median(pairs)
        return (
            Figure(
                what="`sink=wandb` on the compare study",
                asked="under 5 % more",
                value=more,
                unit="%",
                met=more < 0.05,
                note=f"pairs of cold runs: {', '.join(f'{100 * p:+.1f} %' for p in pairs)}",
            ),
        )


def _multiply(rows: Path, stored: Path) -> None:
    """Copies of finished runs under other fingerprints and seeds, until there are ``MANY``."""
    reports = [json.loads(file.read_text()) for file in sorted(rows.glob("*/report.json"))]
    for number in range(MANY):
        report = dict(reports[number % len(reports)])
        report["run"] = {**report["run"], "fingerprint": f"{number:016x}", "seed": number}
        folder = stored / "runs" / f"{number:016x}"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report))


def _seconds(what: str, limit: float, times: list[float], more: str = "") -> Figure:
    middle = statistics.median(times)
    spread = f"median of {len(times)}, {min(times):.1f} to {max(times):.1f} s, as a whole process"
    return Figure(
        what=what,
        asked=f"under {limit} s",
        value=middle,
        unit="s",
        met=middle < limit,
        note="; ".join(part for part in (spread, more) if part),
    )


def _size(what: str, limit: float, value: float) -> Figure:
    return Figure(what=what, asked=f"under {limit} MiB", value=value, unit="MiB", met=value < limit)
