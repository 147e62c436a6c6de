"""Where results go beside their folder: a page for people, and dashboards."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privbench.compose.building import build_as
from privbench.errors import UsageError
from privbench.report.report import Report
from privbench.sinks.base import Mirror, Sink

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from privbench.report.plots import Drawing

PAGE = "report.html"


@dataclass(frozen=True)
class Outlets:
    """What becomes of finished reports.

    Args:
        images: private records are shown in the local page.
        sinks: dashboards, in their order.
        sink_images: private records are sent to them.
    """

    images: bool = True
    sinks: tuple[Sink, ...] = ()
    sink_images: bool = False

    def mirror(self, shown: Shown, study: str, folder: Path, say: Callable[[str], None]) -> None:
        """Show finished reports to every sink. What a sink cannot take is said, and harms nothing.

        Args:
            folder: where the results lie; a sink keeps what it has to keep below it.
            say: prints a sentence.
        """
        for sink in self.sinks:
            with tempfile.TemporaryDirectory(prefix="privbench-sink-") as place:
                mirror = Mirror(
                    study=study,
                    reports=tuple(shown.reports),
                    folder=folder,
                    images=self.sink_images,
                    page=partial(shown.page, Path(place)),
                    figures=shown.figures,
                )
                try:
                    say(sink.publish(mirror))
                except Exception as error:  # noqa: BLE001 - a dashboard never costs a result
                    say(
                        f"sink={sink.name} failed ({type(error).__name__}: {error}); "
                        f"every result is whole in {folder}"
                    )


@dataclass(frozen=True, eq=False)
class Shown:
    """Finished reports with their figures, which are drawn once for the page and all dashboards."""

    reports: Sequence[Report]
    title: str

    @cached_property
    def drawn(self) -> tuple[Drawing, ...]:
        """Every figure that applies, private ones too."""
        from privbench.report.chosen import read_whole
        from privbench.report.folder import lines_of
        from privbench.report.plots import drawings

        return drawings(read_whole(self.reports).reports, lines=lines_of(self.reports))

    def page(self, folder: Path, images: bool) -> Path:
        """Write report.html into a folder, with or without private records.

        Raises:
            StorageError: the folder cannot be written.
        """
        from privbench.report.page import write_page

        file = folder / PAGE
        return write_page(self.reports, file, self.title, images=images, draw=lambda: self.drawn)

    def figures(self, images: bool) -> Mapping[str, Figure]:
        """Maps, ROC and, where they may be shown, images, by name; the rest is in the page."""
        kinds = ("leakage-map-", "roc", "reconstructions-")
        chosen = [each for each in self.drawn if each.name.startswith(kinds)]
        return {each.name: each.figure for each in chosen if images or not each.private}


def outlets_of(plain: Mapping[str, Any]) -> Outlets:
    """The outlets that a configuration asks for.

    Args:
        plain: a resolved configuration.

    Raises:
        UsageError, PluginError: a setting is wrong, or a package that a sink needs is missing.
    """
    images, rest = _images("report", plain["report"])
    if rest:
        raise UsageError(f"report.{next(iter(rest))} is unknown; there is report.images=true|false")
    sink_images, chosen = _images("sink", plain["sink"])
    for name, settings in chosen.items():
        if not isinstance(settings, Mapping) or "_target_" not in settings:
            raise UsageError(f"sink.{name} has settings but is not chosen; add it: sink=[{name}]")
    sinks = tuple(build_as(Sink, settings, f"sink.{name}") for name, settings in chosen.items())
    return Outlets(images, sinks, sink_images)


def _images(key: str, settings: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """The switch for private records, and what else stands there."""
    rest = dict(settings)
    images = rest.pop("images")
    if not isinstance(images, bool):
        raise UsageError(f"{key}.images={images}; expected true or false")
    return images, rest


def run_folder(out: Path, report: Report) -> Path:
    """Where a single run lies."""
    return out / "runs" / report.run.fingerprint


def to_stderr(sentence: str) -> None:
    """Print a sentence where it is not taken for a result."""
    print(sentence, file=sys.stderr, flush=True)
