"""A report as dashboards take it: flat names and numbers, the same in every dashboard."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from privbench.report.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Plain = str | int | float | bool

INTERVAL = ("low", "high", "blind", "n", "verdict")
"""What stands beside a headline value: ``leakage/<goal>/<metric>/low`` and so on."""

FACTS = {
    "accuracy": "utility/accuracy",
    "bytes_per_sample": "cost/bytes_per_sample",
    "flops_per_sample": "cost/flops_per_sample",
    "train_seconds": "cost/train_seconds",
    "attack_seconds": "cost/attack_seconds",
    "shadow_models": "cost/shadow_models",
    "queries": "cost/queries",
    "epsilon": "privacy/epsilon",
    "delta": "privacy/delta",
    "epsilon_covers": "privacy/epsilon_covers",
}
"""Columns of the table that are facts about the run, and what dashboards call them."""

POINTS = 50
"""Points of a curve that dashboards get; the figure and its CSV have all."""


@dataclass(frozen=True)
class Curve:
    """A ROC curve, thinned; column names to values of equal length."""

    columns: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Row:
    """One run on a dashboard.

    Args:
        key: the same for the same run of the same study, so that showing it again replaces it.
        name: what people read.
        kind: the regime.
        choices: what was chosen, one word or number each.
        summary: ``leakage/<goal>/<metric>`` and what else is known of the run.
        curves: of the headline seat.
        table: this run's rows of the table, None where a cell is empty.
    """

    key: str
    name: str
    kind: str
    failed: bool
    choices: Mapping[str, Plain]
    summary: Mapping[str, Plain]
    table: tuple[Mapping[str, Plain | None], ...]
    curves: tuple[Curve, ...] = ()


def row_of(report: Report) -> Row:
    """The report, told for dashboards. Every number is the table's own."""
    names = {name: word for name, word in asdict(report.names).items() if word}
    table = tuple(
        {column: _plain(value) for column, value in row.items()}
        for row in report.table().to_dict("records")
    )
    return Row(
        key=key_of(report),
        name=title(report),
        kind=report.names.regime or "none",
        failed=report.status == "failed",
        choices={**names, "seed": report.run.seed, "fingerprint": report.run.fingerprint},
        summary=summary(report, table),
        table=table,
        curves=curves(report),
    )


def key_of(report: Report) -> str:
    """Sixteen letters that name this run within its study."""
    names, run = report.names, report.run
    known = [names.study, names.row, run.fingerprint or repr((names, run.seed))]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


def title(report: Report) -> str:
    """The row's name, or the words that say what was run."""
    names = report.names
    words = (names.regime, names.defense, names.threat, names.attack, names.variant)
    return names.row or " ".join([*filter(None, words), f"seed={report.run.seed}"])


def summary(report: Report, table: Sequence[Mapping[str, Plain | None]]) -> dict[str, Plain]:
    """Scores and facts under stable names; what is not known is left out."""
    found: dict[str, Plain | None] = {"status": report.status, "reason": report.reason}
    found |= {name: table[0][column] for column, name in FACTS.items()}
    main = headline([str(row["seat"]) for row in table])
    for row in table:
        if row["metric"] is None:
            continue
        key = f"leakage/{row['goal']}/{row['metric']}"
        if row["seat"] == main:
            found[key] = row["value"]
            found |= {f"{key}/{name}": row[name] for name in INTERVAL}
        else:
            found[f"{key}/{row['seat']}"] = row["value"]
    return {key: value for key, value in found.items() if value is not None and value != ""}


def headline(seats: Sequence[str]) -> str:
    """The seat that stands for the run: the only one, or the worst of many."""
    return "worst" if "worst" in seats else seats[0]


def curves(report: Report) -> tuple[Curve, ...]:
    """ROC of the headline seat, where there is one."""
    main = headline([score.seat for score in report.scores] or [""])
    known = report.curves
    chosen = [curve for curve in known if curve.seat == main or len(known) == 1]
    return tuple(_thinned(curve) for curve in chosen)


def png(figure: Figure) -> bytes:
    """A figure as a picture file."""
    from privbench.report.plots.style import house_style

    held = io.BytesIO()
    with house_style():
        figure.savefig(held, format="png", dpi=110)
    return held.getvalue()


def _thinned(curve: Any) -> Curve:
    """At most ``POINTS`` of a curve's points, most of them where few are accused in error."""
    count = len(curve.fpr)
    spaced = np.geomspace(1, count, POINTS).round().astype(int) - 1
    kept = np.unique(spaced) if count > POINTS else np.arange(count)
    columns = {name: getattr(curve, name) for name in ("fpr", "tpr", "low", "high")}
    return Curve({name: tuple(float(v[i]) for i in kept) for name, v in columns.items() if len(v)})


def _plain(value: Any) -> Plain | None:
    """Numbers of numpy and pandas as Python's own; what is empty as None."""
    plain: Plain | None = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and math.isnan(plain) else plain
