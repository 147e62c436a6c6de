"""One measured figure: what was asked, what was found, and under which circumstances."""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

PACKAGES = ("privbench", "torch", "opacus", "scikit-learn", "numpy", "hydra-core")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table of figures.

    Args:
        what: what is measured, in words.
        asked: what is promised, in words.
        value: what was found; None where the measurement failed.
        unit: of ``value``; empty for ratios and counts.
        met: is the promise kept? False where the measurement failed.
        note: what else one has to know to believe it.
        digits: of ``value`` in the table, after the point.
    """

    what: str
    asked: str
    value: float | None
    unit: str = ""
    met: bool
    note: str = ""
    digits: int = 1

    def words(self) -> str:
        """The value as it stands in the table."""
        if self.value is None:
            return "failed"
        if self.unit == "%":
            return f"{100 * self.value:.{self.digits}f} %"
        return f"{self.value:.{self.digits}f} {self.unit}".strip()

    def verdict(self) -> str:
        """``met``, ``MISSED`` or ``FAILED``."""
        if self.value is None:
            return "FAILED"
        return "met" if self.met else "MISSED"


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Where and when a group of figures was measured."""

    command: str
    date: str  # UTC
    machine: str  # its class, in words
    load: float  # runnable processes, mean of the minute before: 0 = a quiet machine
    versions: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Figures that one measurement gave."""

    name: str
    circumstances: Circumstances
    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Something that can be measured by name.

    Args:
        name: what one types to run it alone.
        what: in words, for the row of a measurement that failed.
        asked: likewise.
        run: measures.
    """

    name: str
    what: str
    asked: str
    run: Callable[[], tuple[Figure, ...]]

    def group(self, command: str) -> Group:
        """Measure. What fails becomes a row that says so."""
        around = circumstances(command)
        try:
            figures = self.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others have to run
            traceback.print_exc()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            failed = Figure(what=self.what, asked=self.asked, value=None, met=False, note=reason)
            figures = (failed,)
        return Group(name=self.name, circumstances=around, figures=figures)


def circumstances(command: str) -> Circumstances:
    """Those of now."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return Circumstances(
        command=command,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=_machine(),
        load=round(os.getloadavg()[0], 2),
        versions=f"Python {platform.python_version()}, {packages}",
    )


def _machine() -> str:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{cores} cores, {memory:.0f} GiB, CPU, {platform.system()}"
