"""Writes runs with the real W&B client: a process of its own, that ends and takes everything along.

``python -m privbench.sinks.wandb_log`` imports wandb, then reads paths of JSON files (see ``Work``) from
standard input, a line each, and writes what each one holds, so that the caller can draw figures meanwhile.
It is always offline: nothing here waits for a network.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, TypedDict

import wandb
import wandb.util

# The client asks of every value whether it is a frame, and of every run what W&B Launch has for it.
# Nothing here is, and nothing has; importing what answers takes 0.3 s each.
wandb.util.pd_available = False
sys.modules["wandb.sdk.launch.inputs.internal"] = None  # type: ignore[assignment]

PLAIN: dict[str, Any] = {
    "mode": "offline",
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "symlink": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
"""No host names, hardware, packages, code or console output: scores and settings, nothing else."""


class Shown(TypedDict):
    """What one run gets beside its scores; files are named by their paths."""

    columns: list[str]
    rows: list[list[Any]]
    figures: dict[str, str]
    page: str


class RunFacts(TypedDict):
    """One run of the dashboard."""

    id: str
    name: str
    kind: str
    failed: bool
    config: dict[str, Any]
    summary: dict[str, Any]
    curves: list[dict[str, list[float]]]
    shown: Shown | None


class Work(TypedDict):
    """Some runs to be written."""

    root: str
    project: str
    entity: str | None
    group: str
    runs: list[RunFacts]


def write(work: Work) -> None:
    """Write every run, in place of an older offline copy."""
    settings = wandb.Settings(root_dir=work["root"], **PLAIN)
    for facts in work["runs"]:
        for old in Path(work["root"], "wandb").glob(f"offline-run-*-{facts['id']}"):
            shutil.rmtree(old)
        run = wandb.init(
            project=work["project"],
            entity=work["entity"],
            group=work["group"],
            id=facts["id"],
            name=facts["name"],
            job_type=facts["kind"],
            config=facts["config"],
            reinit="create_new",
            settings=settings,
        )
        for curve in facts["curves"]:
            _log_curve(run, curve)
        if facts["shown"]:
            _show(run, facts["shown"])
        run.summary.update(facts["summary"])
        run.finish(exit_code=int(facts["failed"]))


def _log_curve(run: wandb.Run, curve: dict[str, list[float]]) -> None:
    """True over false positive rate; its last point is no summary of anything."""
    run.define_metric("roc/fpr", hidden=True, summary="none")
    for name in curve:
        if name != "fpr":
            run.define_metric(f"roc/{name}", step_metric="roc/fpr", summary="none")
    for point in zip(*curve.values(), strict=True):
        run.log({f"roc/{name}": value for name, value in zip(curve, point, strict=True)})


def _show(run: wandb.Run, shown: Shown) -> None:
    """Table, figures and page."""
    kinds = [_kind(cells) for cells in zip(*shown["rows"], strict=True)]
    table = wandb.Table([*shown["columns"]], dtype=kinds)
    table.data = shown["rows"]  # add_data() compares types cell by cell
    figures = {f"figures/{name}": wandb.Image(file) for name, file in shown["figures"].items()}
    run.log({"table": table, **figures})
    page = wandb.Artifact(f"report-{run.id}", type="report")
    page.add_file(shown["page"], "report.html", policy="immutable", skip_cache=True)
    run.log_artifact(page)


def _kind(cells: tuple[Any, ...]) -> type:
    """What a column holds, empty cells aside."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {bool}:
        return bool
    return float if kinds and kinds <= {int, float} else str


if __name__ == "__main__":
    wandb.setup()  # starts the client's service
    for line in sys.stdin:
        write(json.loads(Path(line.rstrip("\n")).read_text(encoding="utf-8")))
