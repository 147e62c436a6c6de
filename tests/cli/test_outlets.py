"""The page and the dashboards of finished reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from privbench.compose.outlets import Outlets, Shown, outlets_of
from privbench.errors import UsageError
from privbench.report.report import Names, Report, SeatFacts
from privbench.scoring.score import Pictures, Score
from privbench.sinks.base import Mirror, Sink

NAMES = Names(
    "compare", "a-row", "digits", "mlp", "split", "", "split_server", "decoder", "", "reconstruction"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Kept(Sink):
    """Keeps what it was shown."""

    name: ClassVar[str] = "kept"
    package: ClassVar[str] = "json"

    pages: list[str]

    def publish(self, mirror: Mirror) -> str:
        self.pages.append(mirror.page(mirror.images).read_text())
        self.pages.append(" ".join(mirror.figures(mirror.images)))
        return f"kept {len(mirror.reports)} of {mirror.study}"


@dataclass(frozen=True, kw_only=True)
class Broken(Kept):
    """Fails."""

    name: ClassVar[str] = "broken"

    def publish(self, mirror: Mirror) -> str:
        raise ConnectionError("nobody answers")


@pytest.fixture
def report() -> Report:
    pictures = Pictures("server", *(np.full((2, 1, 8, 8), v, dtype=np.uint8) for v in (9, 8, 7)))
    score = Score("reconstruction", "identification", "server", 0.9, 0.8, 1.0, 40, blind=0.1)
    seats = (SeatFacts("server", "infrastructure"),)
    return Report(NAMES, scores=(score,), seats=seats, pictures=(pictures,))


@pytest.mark.parametrize("goal", ["reconstruction", "inversion"])
@pytest.mark.parametrize("images", [False, True])
def test_dashboards_see_private_images_only_where_that_is_switched_on(
    images: bool, goal: str, report: Report, tmp_path: Path
) -> None:
    metric = {"reconstruction": "identification", "inversion": "evaluator_top1"}[goal]
    scores = tuple(replace(score, goal=goal, metric=metric) for score in report.scores)
    report = replace(report, names=replace(report.names, goal=goal), scores=scores)
    pages: list[str] = []
    outlets = Outlets(images=True, sinks=(Kept(pages=pages),), sink_images=images)
    shown, said = Shown((report,), "compare"), []
    local = shown.page(tmp_path, outlets.images).read_text()
    outlets.mirror(shown, "compare", tmp_path, said.append)
    page, figures = pages
    assert "data:image/png" in local
    assert ("data:image/png" in page) is images
    assert ("reconstructions-" in figures) is images
    assert said == ["kept 1 of compare"]


def test_report_images_false_keeps_them_out_of_the_local_page(
    report: Report, tmp_path: Path
) -> None:
    page = Shown((report,), "compare").page(tmp_path, images=False).read_text()
    assert "data:image/png" not in page
    assert "report.images=false" in page


def test_a_dashboard_that_fails_costs_neither_result_nor_the_next_dashboard(
    report: Report, tmp_path: Path
) -> None:
    pages: list[str] = []
    said: list[str] = []
    outlets = Outlets(sinks=(Broken(pages=pages), Kept(pages=pages)))
    outlets.mirror(Shown((report,), "compare"), "compare", tmp_path, said.append)
    failed, kept = said
    assert "sink=broken failed (ConnectionError: nobody answers)" in failed
    assert str(tmp_path) in failed
    assert kept == "kept 1 of compare"


def test_figures_are_drawn_once(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from privbench.report import plots

    drawn = []

    def _drawings(reports: object, images: bool = True, lines: object = ()) -> tuple[()]:
        drawn.append(reports)
        return ()

    monkeypatch.setattr(plots, "drawings", _drawings)
    outlets = Outlets(sinks=(Kept(pages=[]), Kept(pages=[])))
    shown = Shown((report, replace(report, status="ok")), "compare")
    shown.page(tmp_path, True)
    outlets.mirror(shown, "compare", tmp_path, lambda sentence: None)
    assert len(drawn) == 1


@pytest.mark.parametrize(
    ("report_keys", "sink_keys", "said"),
    [
        ({"images": 1}, {"images": False}, "report.images=1; expected true or false"),
        ({"images": True, "pages": 3}, {"images": False}, "report.pages is unknown"),
        ({"images": True}, {"images": "no"}, "sink.images=no; expected true or false"),
        ({"images": True}, {"images": False, "wandb": {"mode": "online"}}, r"sink=\[wandb\]"),
    ],
)
def test_settings_that_cannot_be(report_keys: dict, sink_keys: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        outlets_of({"report": report_keys, "sink": sink_keys})
