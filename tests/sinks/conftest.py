"""A study with a row of each kind, and the client kept inside the test's folder and this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from privbench.report.report import Names, Refusal, Report, Run, SeatFacts, Target
from privbench.scoring.score import Roc, Score
from privbench.sinks.base import Mirror

sys.path.insert(0, str(Path(__file__).parent))

SECRET = "PRIVATE-RECORD-77"
"""Stands in a page, and names a figure, where private pictures are shown."""

CONFIG = "seed: 3\nattack:\n  _target_: attacks.membership.lira.Lira\n  mode: online\n"


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests; every file below the test's folder; no address at all."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def _member(row: str, value: float, **run: Any) -> Report:
    points = tuple(i / 300 for i in range(1, 301))
    return Report(
        names=Names(row=row, data="digits", model="mlp", regime="centralized", threat="released",
                    attack="lira", goal="membership", study="compare"),
        scores=(
            Score("membership", "auc", "anyone", value, value - 0.1, value + 0.1, 600, 600, 0.5, "coin"),
            Score("membership", "tpr_at_1pct_fpr", "anyone", 1 / 3, 0.3, 0.4, 600, 600, 0.01, "coin"),
        ),
        seats=(SeatFacts("anyone", "anyone", rows_seen=0),),
        target=Target(0.1 + 0.2, 1.0, 12345.678901234567, 9e4, 2.9999999999999996, 1e-5, "released", 1.5),
        run=Run(seed=3, fingerprint=f"fp-{row}", config=CONFIG, versions={"torch": "2"}, **run),
        curves=(Roc("anyone", points, points, points, points, 0.02),),
    )  # fmt: skip


def _hosts() -> Report:
    scores = [
        Score("reconstruction", "identification", seat, value, value / 2, 1.0, 40, blind=0.002)
        for seat, value in (("device-0", 0.7), ("device-1", 0.1), ("worst", 0.65), ("best", 0.12))
    ]
    return Report(
        names=Names("compare", "080-hosts", "digits", "mlp", "slicenet", "", "host",
                    "ridge_decoder", "", "reconstruction"),
        scores=tuple(scores),
        seats=(SeatFacts("device-0", "peer"), SeatFacts("device-1", "peer")),
        refusals=(Refusal("it needs pairs", 3, "peer"),),
        run=Run(seed=3, fingerprint="fp-hosts", config=CONFIG),
    )  # fmt: skip


@pytest.fixture
def reports() -> tuple[Report, ...]:
    """Membership, many seats, not applicable, failed."""
    names = Names("compare", "085-none", "digits", "mlp", "slicenet", threat="wire", attack="lira")
    return (
        _member("020-lira", 0.5944138888888889),
        _hosts(),
        Report(names, "not_applicable", "it needs prefix weights", run=Run(seed=3)),
        Report(
            replace(names, row="086-broken"), "failed", "it went wrong | badly", run=Run(seed=3)
        ),
    )


@pytest.fixture
def mirror(reports: tuple[Report, ...], tmp_path: Path) -> Mirror:
    """Its page and figures hold the secret where private pictures are asked for."""

    def page(images: bool) -> Path:
        file = tmp_path / "rendered.html"
        file.write_text(f"<!doctype html><p>report {SECRET if images else 'without'}</p>")
        return file

    def figures(images: bool) -> Mapping[str, Figure]:
        names = ("roc", "reconstructions") if images else ("roc",)
        drawn = {name: Figure(figsize=(2, 2)) for name in names}
        for figure in drawn.values():
            figure.subplots().plot([0, 1])
        return drawn

    return Mirror(
        study="compare", reports=reports, folder=tmp_path / "out", page=page, figures=figures
    )


@pytest.fixture
def read_back() -> Callable[[Path], list[dict[str, Any]]]:
    """The records of an offline run, by the client's own reader."""

    def read(folder: Path) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return read
