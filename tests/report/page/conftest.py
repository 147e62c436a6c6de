"""A small study with everything a page can show, and a browser to look at it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privbench.report.crowd import Block, CrowdFacts, Load, Stage, Traffic
from privbench.report.page import write_page
from privbench.report.report import Names, Refusal, Report, Run, SeatFacts, Target
from privbench.scoring.score import Pictures, Roc, Score

MISSING = (
    "no browser to look at the page with: apt-get install chromium, and "
    "pip install playwright axe-playwright-python"
)
DEVICES = [f"device-{i}" for i in range(4)]


def _score(seat: str, value: float, **more: Any) -> Score:
    base = {"goal": "reconstruction", "metric": "identification", "n": 200, "blind": 0.002}
    low, high = max(0.0, value - 0.0312), min(1.0, value + 1 / 48)
    return Score(**{**base, "seat": seat, "value": value, "low": low, "high": high, **more})


def _crowd() -> CrowdFacts:
    parties = [("first", 8, d) for d in DEVICES[:2]] + [("second", 4, d) for d in DEVICES[2:]]
    pairs = [(a, b) for i, a in enumerate(DEVICES) for b in DEVICES[i + 1 :]]
    return CrowdFacts(
        (Stage("stem", "stem", 16), Stage("first", "body", 16), Stage("second", "body", 8),
         Stage("tail", "tail", 2)),
        tuple(Block(party, layer, units, "output") for layer, units, party in parties),
        tuple(Load(d, 1.25e6 * (i + 1), 4e6, 1e5, 2.5e5) for i, d in enumerate(DEVICES)),
        tuple(Traffic(a, b, 64.0 * (i + 1)) for i, (a, b) in enumerate(pairs)),
    )  # fmt: skip


def _pictures(seat: str) -> Pictures:
    rng = np.random.default_rng(DEVICES.index(seat))
    true, noise = (rng.integers(0, 256, (5, 1, 6, 6)).astype(np.uint8) for _ in range(2))
    return Pictures(seat, true, true // 2 + noise // 2, np.full_like(true, 128))


def crowd_report() -> Report:
    """Four hosts: two see nearly everything, one little, one nothing to speak of."""
    values = dict(zip(DEVICES, (0.99, 0.9625, 0.0625, 0.002), strict=True))
    scores = []
    for seat, value in values.items():
        scores.append(_score(seat, value, note="identified among 500"))
        scores.append(
            _score(seat, 9 + 20 * value, metric="psnr_db", low=8.5, high=30.25, blind=11 / 1.3)
        )
    scores += [_score("worst", 0.985), _score("median", 0.5), _score("best", 0.0625)]
    run = Run(3, 1, "cpu", "c" * 16, True, worst_column="infrastructure", guess_hash="cafe",
              versions={"python": "3.11", "torch": "2"}, splits={"members": 600},
              command="privbench study=small", config="regime:\n  granularity: 8\n",
              notices=("near duplicates: none",))  # fmt: skip
    return Report(
        Names("small", "080-host", "digits", "mlp", "slicenet", "", "host", "ridge_decoder", "",
              "reconstruction"),
        scores=tuple(scores),
        seats=tuple(SeatFacts(d, "peer", "prefix", 400, 600, 19) for d in DEVICES),
        refusals=(Refusal("it needs prefix weights, which this seat does not have", 2, "peer"),),
        target=Target(0.955, 1.0, 34939.61, 96128.0, train_seconds=1.5),
        run=run,
        crowd=_crowd(),
        pictures=tuple(_pictures(d) for d in DEVICES),
    )  # fmt: skip


def membership(regime: str, row: str, value: float, **more: Any) -> Report:
    """A released model, attacked for membership, with its curve."""
    fpr = (1 / 600, 0.01, 0.1, 0.5, 1.0)
    curve = Roc("anyone", fpr, tuple(x**0.8 for x in fpr), tuple(0.8 * x for x in fpr),
                tuple(min(1.0, 2 * x**0.8) for x in fpr), 10 / 600)  # fmt: skip
    scores = (
        _score("anyone", value, goal="membership", metric="auc", n=600, n_negative=600, blind=0.5),
        _score(
            "anyone", 0.03, goal="membership", metric="tpr_at_1pct_fpr", blind=0.01, reliable=False
        ),
    )
    names = Names("small", row, "digits", "mlp", regime, "", "released", "lira", "", "membership")
    return Report(
        names, scores=scores, seats=(SeatFacts("anyone", "outsider"),), curves=(curve,),
        target=Target(0.9, 1.0, 12.5), run=Run(3, fingerprint=row * 3),
        **more,
    )  # fmt: skip


@pytest.fixture(scope="session")
def study() -> tuple[Report, ...]:
    """One report of every kind and status."""
    trainer = Report(
        Names("small", "010-trainer", "digits", "mlp", "centralized", "", "trainer", "read_out", "",
              "reconstruction"),
        scores=(_score("trainer", 1.0, by_construction=True),),
        seats=(SeatFacts("trainer", "infrastructure"),), run=Run(3, fingerprint="a" * 16),
    )  # fmt: skip
    failed = Report(replace(trainer.names, row="100-failed", regime="split"), "failed", "it broke")
    return (
        trainer,
        membership("centralized", "020-lira", 0.594),
        membership("dpsgd", "050-lira", 0.505),
        crowd_report(),
        membership("slicenet", "095-lira", 0.594, status="same_as", reason="equal to centralized"),
        failed,
    )


@pytest.fixture(scope="session")
def page_file(study: tuple[Report, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's page on disk."""
    return write_page(study, tmp_path_factory.mktemp("page") / "report.html", "small")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless browser; skips where there is none, unless PRIVBENCH_BROWSER=required."""
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
    )
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        found = ""
    if not found:
        stop = pytest.fail if os.environ.get("PRIVBENCH_BROWSER") == "required" else pytest.skip
        stop(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """An open page, with whatever went wrong on it."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.url = file.as_uri()
        page.on(
            "console",
            lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.url)

    def calm(self) -> None:
        """Nothing broke, and nothing but the file itself was asked for."""
        assert self.errors == []
        assert {url for url in self.requests if not url.startswith(("data:", "blob:"))} == {
            self.url
        }


@pytest.fixture
def opened(chromium: Any, page_file: Path) -> Iterator[Any]:
    """Opens the page (or another file) under a theme, at a width; afterwards all must be calm."""
    pages: list[tuple[Any, Watched]] = []

    def go(theme: str = "light", width: int = 1280, file: Path = page_file, **more: Any) -> Any:
        context = chromium.new_context(
            color_scheme=theme, viewport={"width": width, "height": 900}, **more
        )
        watched = Watched(context.new_page(), file)
        pages.append((context, watched))
        return watched.page

    yield go
    for context, watched in pages:
        watched.calm()
        context.close()
