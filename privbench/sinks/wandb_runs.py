"""What each run on a W&B dashboard holds, as plain data for the process that writes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from privbench.report.columns import COLUMNS
from privbench.report.report import Report, write_whole
from privbench.sinks.base import Mirror
from privbench.sinks.rows import Row, png

if TYPE_CHECKING:
    from privbench.sinks.wandb_log import RunFacts, Shown


def runs_of(mirror: Mirror, rows: Sequence[Row], agent_id: str = "") -> list[RunFacts]:
    """A run a report and, where there are several, one for the study: it comes last.

    Args:
        agent_id: id that a sweep agent chose for the only report.
    """
    runs = [_run(report, row) for report, row in zip(mirror.reports, rows, strict=True)]
    if len(runs) == 1:
        runs[0]["id"] = agent_id or runs[0]["id"]
        return runs
    return [*runs, _study(mirror, runs)]


def _run(report: Report, row: Row) -> RunFacts:
    return {
        "id": row.key,
        "name": row.name,
        "kind": row.kind,
        "failed": row.failed,
        "config": {
            **row.choices,
            "device": report.run.device,
            "threads": report.run.threads,
            "versions": dict(report.run.versions),
            "settings": yaml.safe_load(report.run.config) or {},
        },
        "summary": dict(row.summary),
        "curves": [{name: list(v) for name, v in curve.columns.items()} for curve in row.curves],
        "shown": None,
    }


def _study(mirror: Mirror, runs: list[RunFacts]) -> RunFacts:
    """The run that holds what belongs to all rows; the same rows again, the same run."""
    name = mirror.study or "sweep"
    key = hashlib.sha256("\n".join([name, *(run["id"] for run in runs)]).encode()).hexdigest()[:16]
    states = [report.status for report in mirror.reports]
    return {
        "id": key,
        "name": name,
        "kind": "study",
        "failed": "failed" in states,
        "config": {"study": name},
        "summary": {
            "rows": len(states),
            **{f"rows/{state}": states.count(state) for state in sorted(set(states))},
        },
        "curves": [],
        "shown": None,
    }


def shown(mirror: Mirror, rows: Sequence[Row], place: Path, key: str) -> Shown:
    """The table, the figures and the page, without private pictures unless they may leave.

    Args:
        place: where pictures and page are put for the client to take, under the run's ``key``.
    """
    drawn = place / "figures" / key
    drawn.mkdir(parents=True, exist_ok=True)
    for old in drawn.iterdir():
        old.unlink()
    figures: dict[str, str] = {}
    for name, figure in mirror.figures(mirror.images).items():
        (drawn / f"{len(figures)}.png").write_bytes(png(figure))
        figures[name] = str((drawn / f"{len(figures)}.png").resolve())
    page = place / "pages" / f"{key}.html"
    page.parent.mkdir(exist_ok=True)
    write_whole(page, mirror.page(mirror.images).read_text(encoding="utf-8"))
    return {
        "columns": list(COLUMNS),
        "rows": [list(cells.values()) for row in rows for cells in row.table],
        "figures": figures,
        "page": str(page.resolve()),
    }
