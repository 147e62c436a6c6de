"""Where figures of the literature are written down: ``benchmarks/golden.csv``, a line a figure."""

from __future__ import annotations

import csv
import fcntl
import os
import platform
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

SHEET = Path(__file__).parents[2] / "benchmarks" / "golden.csv"
PACKAGES = ("privbench", "torch", "torchmetrics", "numpy")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure of a paper, and what was measured here; the columns of the sheet, in order.

    Args:
        what: whose figure: authors and year, data, attack, cut, metric with its unit.
        setting: what was the same for replica and ours: model, images, seeds.
        published: theirs.
        replica: found with their network, cut and optimiser; None = not measured.
        ours: found with our best preset on the same model and images; None = not measured.
        low, high: between which the replica must lie; None = no bound on that side.
        n: images, victims or seeds that were measured.
        seconds: of everything that the line took.
        remark: all else that one must know to believe it: the blind value, what was tried where a figure
            was missed.
    """

    what: str
    setting: str
    published: float | None
    replica: float | None
    ours: float | None
    low: float | None
    high: float | None
    n: int
    seconds: float
    versions: str
    machine: str
    remark: str


def note(
    what: str,
    setting: str,
    *,
    published: float | None,
    replica: float | None = None,
    ours: float | None = None,
    low: float | None = None,
    high: float | None = None,
    n: int,
    seconds: float,
    remark: str = "",
    sheet: Path = SHEET,
) -> Line:
    """Write a figure down, in place of what stood there for the same ``what`` and ``setting``.

    Call it before asserting: a figure that is missed stays in the table as missed. Several processes
    may write at once. Arguments are those of ``Line``.

    Example::

        note("He 2019, MNIST, rMLE, conv1, PSNR dB", "LeNet-5, 100 test images", published=39.69,
             replica=38.9, ours=112.0, low=37.69, high=41.69, n=100, seconds=61.0)
    """
    line = Line(
        what=what, setting=setting, published=published, replica=_short(replica), ours=_short(ours),
        low=_short(low), high=_short(high), n=n, seconds=round(seconds, 1), versions=_versions(),
        machine=_machine(), remark=" ".join(remark.split()),
    )  # fmt: skip
    names = [field.name for field in fields(Line)]
    with sheet.open("a+", encoding="utf-8", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        rows = {(row["what"], row["setting"]): row for row in csv.DictReader(file)}
        rows[what, setting] = {
            key: "" if value is None else str(value) for key, value in asdict(line).items()
        }
        file.truncate(0)
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))
    return line


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()}, {packages}"


def _machine() -> str:
    """Its class, in words."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, CPU, {platform.system()}"
