"""The whole comparison as a user gets it: cold, then again, and what proves that it was whole.

``privbench`` without words in a fresh folder, then ``privbench again=true`` in the same one. The
conditions (how many shadow models, hosts, images) are read from what the run wrote, not from its
settings.
"""

from __future__ import annotations

import csv
import functools
import shutil
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

from figure import Figure
from launch import Launch, launch
from omegaconf import OmegaConf

from privbench.contract import Fitted
from privbench.report.columns import SUMMARY
from privbench.report.report import Report
from privbench.report.study import rows_of, study_folder
from privbench.wire import codec

STUDY = "compare"
TIMES = ("train_seconds", "attack_seconds")  # columns in which equal runs may differ
GIB = 2**30

Row = dict[str, str]
"""One line of table.csv, by the names of its columns."""


class Comparison:
    """One fresh folder and the runs in it; the cold one is made when first asked for.

    Args:
        folder: empty; the caller removes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "runs"

    @functools.cached_property
    def first(self) -> Launch:
        """The cold run. One that failed leaves nothing: the next to ask starts cold too."""
        shutil.rmtree(self.out, ignore_errors=True)
        return launch(program(), self.folder)

    def cold(self) -> tuple[Figure, ...]:
        """Time and memory of the cold run, and its conditions."""
        first = self.first
        return (
            Figure(
                what="`privbench` cold",
                asked="under 150 s",
                value=first.seconds,
                unit="s",
                met=first.seconds < 150,
            ),
            memory(first, "`privbench` cold, peak memory"),
            *conditions(self.out),
        )

    def again(self) -> tuple[Figure, ...]:
        """Time and memory of a second run that scores anew, and proof that it did just that."""
        _ = self.first
        rows, stored, reports = table(self.out), _stored(self.out), _written(self.out, "runs")
        second = launch([*program(), "again=true"], self.folder)
        made = len(_stored(self.out) - stored)
        kept = len(_written(self.out, "runs") & reports)
        differing = _differing(rows, table(self.out))
        return (
            Figure(
                what="`privbench again=true`",
                asked="under 30 s",
                value=second.seconds,
                unit="s",
                met=second.seconds < 30,
            ),
            memory(second, "the same, peak memory"),
            Figure(
                what="the same: targets and fits made anew",
                asked="none",
                value=made,
                met=made == 0,
                digits=0,
            ),
            Figure(
                what="the same: rows taken from the first run",
                asked="none",
                value=kept,
                met=kept == 0 and bool(reports),
                note=f"{len(reports)} stored reports, each to be written anew",
                digits=0,
            ),
            Figure(
                what="the same: lines of the table that differ",
                asked="none",
                value=differing,
                met=differing == 0,
                note=f"of {len(rows)}; all columns but {' and '.join(TIMES)}",
                digits=0,
            ),
        )


def program() -> list[str]:
    """The installed ``privbench`` beside this interpreter."""
    script = Path(sys.executable).with_name("privbench")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "privbench"]


def help_text(folder: Path, runs: int = 5) -> tuple[Figure, ...]:
    """Median time of ``privbench --help``, and whether it imports torch."""
    probe = "import sys, privbench.cli as c; c.main(['--help']); sys.exit('torch' in sys.modules)"
    times = [launch([*program(), "--help"], folder, interval=0.005).seconds for _ in range(runs)]
    median = statistics.median(times)
    try:
        launch([sys.executable, "-c", probe], folder)
        without = True
    except RuntimeError:
        without = False
    return (
        Figure(
            what="`privbench --help`",
            asked="under 1 s",
            value=median,
            unit="s",
            met=median < 1,
            note=f"median of {runs}, {min(times):.2f} to {max(times):.2f}",
            digits=2,
        ),
        Figure(
            what="`privbench --help` imports torch",
            asked="no",
            value=float(not without),
            met=without,
            note="1 = it does",
            digits=0,
        ),
    )


def memory(run: Launch, what: str) -> Figure:
    """Peak of the process tree, judged by its upper bound."""
    peak = run.largest if run.resident is None else run.resident
    note = f"largest process {run.largest / GIB:.2f} GiB"
    if run.resident is None:
        note = "the largest process alone: this system does not list the others"
    elif run.proportional is not None:
        note += f"; {run.proportional / GIB:.2f} GiB with shared pages counted once"
    return Figure(
        what=what,
        asked="under 3 GiB",
        value=peak / GIB,
        unit="GiB",
        met=peak < 3 * GIB,
        note=note,
        digits=2,
    )


def table(out: Path) -> list[Row]:
    """The study's table.csv."""
    with (study_folder(out, STUDY) / "table.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def conditions(out: Path) -> tuple[Figure, ...]:
    """What has to hold for the time of a cold run to count."""
    rows, reports = table(out), rows_of(out, STUDY)
    return (
        _rows(reports),
        _shadows(out, rows),
        _hosts(rows, reports),
        _images(_of_hosts(rows), "ridge_decoder", 200, "images a host for ridge_decoder"),
        _images(rows, "gradient_inversion", 8, "images a seat for gradient_inversion"),
        _training(reports),
    )


def _rows(reports: Iterable[Report]) -> Figure:
    """Rows that broke; the rest of the statuses stand in the note."""
    found = [report.status for report in reports]
    counts = ", ".join(f"{found.count(status)} {status}" for status in sorted(set(found)))
    failed = found.count("failed")
    return Figure(
        what="failed rows", asked="none", value=failed, met=failed == 0, note=counts, digits=0
    )


def _shadows(out: Path, rows: list[Row]) -> Figure:
    """Shadow models of each LiRA row; are those that were stored pairs of complementary halves?"""
    counts = [int(float(row["shadow_models"] or 0)) for row in rows if row["attack"] == "lira"]
    pairs = [_complementary(file) for file in sorted((out / "fits").glob("*/fitted"))]
    known = [pair for pair in pairs if pair is not None]
    least, all_pairs = min(counts, default=0), bool(known) and all(known)
    return Figure(
        what="complementary shadow models a recipe, the fewest",
        asked="at least 16",
        value=least,
        met=least >= 16 and all_pairs,
        note=f"{len(known)} stored ensembles, {sum(known)} of them complementary by their masks",
        digits=0,
    )


def _complementary(file: Path) -> bool | None:
    """Is every second model trained on what the one before was not? None: no shadow models."""
    fitted = codec.load(file)
    if not isinstance(fitted, Fitted) or "pairing" not in fitted.facts:
        return None
    member = fitted.tensors["member"]
    return len(member) % 2 == 0 and bool((member[0::2] ^ member[1::2]).all())


def _hosts(rows: list[Row], reports: Iterable[Report]) -> Figure:
    """Hosts that ridge_decoder attacked, of the devices in the crowd; the row with the fewest."""
    found = []
    for report in reports:
        names = report.names
        if (names.threat, names.attack) != ("host", "ridge_decoder"):
            continue
        seats = {
            row["seat"] for row in rows if row["row"] == names.row and row["seat"] not in SUMMARY
        }
        crowd = OmegaConf.create(report.run.config).regime.crowd
        found.append((len(seats - {""}), int(crowd.devices)))
    attacked, devices = min(found, default=(0, 1))
    return Figure(
        what="hosts attacked by ridge_decoder, the fewest",
        asked=f"all {devices}",
        value=attacked,
        met=bool(found) and all(seats == crowd for seats, crowd in found),
        note=f"in {len(found)} rows",
        digits=0,
    )


def _of_hosts(rows: list[Row]) -> list[Row]:
    """What hosts scored; a link carries a part of the records only, and is attacked on all of it."""
    return [row for row in rows if row["threat"] in ("host", "hosts")]


def _images(rows: list[Row], attack: str, asked: int, what: str) -> Figure:
    """The fewest images that one seat's attack was asked to rebuild.

    A seat that no record ever passed (an owner who takes part in no consecutive steps) has nothing
    to rebuild: it does not count, and the note says how many there are.
    """
    scores = [
        row for row in rows if row["attack"] == attack and row["n"] and row["seat"] not in SUMMARY
    ]
    saw = [row for row in scores if float(row["rows_seen"] or 0) > 0]
    idle = {(row["row"], row["seat"]) for row in scores} - {
        (row["row"], row["seat"]) for row in saw
    }
    least = min((int(float(row["n"])) for row in saw), default=0)
    return Figure(
        what=f"{what}, the fewest",
        asked=f"at least {asked}",
        value=least,
        met=least >= asked,
        note=f"in {len(saw)} scores; seats that no record passed: {len(idle)}",
        digits=0,
    )


def _training(reports: Iterable[Report]) -> Figure:
    """Least training accuracy of the regimes without noise; those stopped early on purpose aside."""
    found: dict[str, float] = {}
    for report in reports:
        quality, names = report.target, report.names
        noisy = quality.epsilon is not None or names.defense
        if not noisy and names.variant != "matched" and quality.train_accuracy is not None:
            name = f"{names.regime} {names.variant}".strip()
            found[name] = min(found.get(name, 1.0), quality.train_accuracy)
    least = min(found, key=found.__getitem__, default="none")
    value = found.get(least, 0.0)
    return Figure(
        what="training accuracy in regimes without noise, the least",
        asked="at least 0.95",
        value=value,
        met=value >= 0.95,
        note=f"{least}; 'matched' is stopped early on purpose and does not count",
        digits=3,
    )


def _stored(out: Path) -> frozenset[tuple[str, int]]:
    return _written(out, "targets") | _written(out, "fits")


def _written(out: Path, kind: str) -> frozenset[tuple[str, int]]:
    """Entries of a store with the moment at which each was last written."""
    name = "report.json" if kind == "runs" else "complete.json"
    files = (out / kind).glob(f"*/{name}")
    return frozenset((str(file), file.stat().st_mtime_ns) for file in files)


def _differing(before: list[Row], after: list[Row]) -> int:
    """Lines that are not the same text, times aside."""
    bare = [
        [{key: row[key] for key in row if key not in TIMES} for row in rows]
        for rows in (before, after)
    ]
    unequal = sum(one != other for one, other in zip(*bare, strict=False))
    return unequal + abs(len(before) - len(after))
