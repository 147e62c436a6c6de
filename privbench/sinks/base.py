"""What every dashboard is to us: a mirror of results that lie on disk already."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from privbench.errors import StorageError, UsageError
from privbench.report.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Mirror:
    """What a dashboard may show.

    Args:
        study: name of the study; empty = a single run or a plain sweep.
        reports: finished rows, in the table's order.
        folder: where the results lie; a sink keeps its own files below ``sinks/<name>`` of it.
        page: ``page(images)`` renders report.html anew into a file of its own and says where;
            private pictures are in it only if ``images``.
        figures: ``figures(images)`` draws figures by name, under the same rule.
        images: may originals and reconstructions leave this folder?
    """

    study: str
    reports: tuple[Report, ...]
    folder: Path
    page: Callable[[bool], Path]
    figures: Callable[[bool], Mapping[str, Figure]]
    images: bool = False

    def place(self, name: str) -> Path:
        """The folder of one sink's files, made if need be.

        Raises:
            StorageError: it cannot be made.
        """
        place = self.folder / "sinks" / name
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise StorageError(
                f"cannot make '{place}': {cause}; expected a writable folder"
            ) from cause
        return place


@dataclass(frozen=True, kw_only=True)
class Sink(ABC):
    """One dashboard. A package that it lacks is said when the sink is made, before anything trains."""

    name: ClassVar[str]
    package: ClassVar[str]

    def __post_init__(self) -> None:
        """Look for the package, without importing it."""
        if importlib.util.find_spec(self.package) is None:
            raise UsageError(
                f"sink={self.name} needs the package {self.package}; "
                f"install it: pip install 'privbench[{self.name}]'"
            )

    @abstractmethod
    def publish(self, mirror: Mirror) -> str:
        """Show these results; the same results again replace what was shown.

        Called when everything is on disk and the table was printed.

        Returns:
            One sentence for the user: where they are, or what to type so that they get there.

        Raises:
            PrivbenchError: nothing could be shown; the results themselves are safe.
        """
