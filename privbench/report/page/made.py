"""How it was made: commands, configurations, versions, and what did not work and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import duckdb
import pyarrow as pa

from privbench.report.report import Report

MOST = 200
"""Reasons that are listed."""

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "tail": "stay with their owners, who send the gradient of the last hidden activation",
        "logits": "stay with their owners, who send the gradient of the logits: it tells each label",
        "shared": "sent to the host that computes the loss",
    }
)
"""By ``regime.labels``; in no mode are they hidden."""

REASONS = f"""
SELECT verdict, reason, count(*) AS rows, list_sort(list(DISTINCT concat_ws(' · ', regime,
  nullif(defense, ''), nullif(threat, ''), nullif(attack, ''), nullif(variant, ''))))[:6] AS places
FROM lines WHERE verdict IN ('failed', 'not applicable') AND reason <> ''
GROUP BY verdict, reason ORDER BY verdict, min(run) LIMIT {MOST}
"""


@dataclass(frozen=True)
class Reason:
    """Why there is no number: which verdict, how many rows, where."""

    verdict: str
    reason: str
    rows: int
    places: str


@dataclass(frozen=True)
class Made:
    """Circumstances of one run."""

    title: str
    facts: tuple[tuple[str, str], ...]
    config: str
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Making:
    """Circumstances of a page: ``shared`` versions are those of every run told of."""

    commands: tuple[str, ...]
    shared: str
    runs: tuple[Made, ...]
    reasons: tuple[Reason, ...]


def making(reports: Sequence[Report], lines: pa.Table) -> Making:
    """Of these reports what they say about themselves; of all rows why numbers are missing."""
    with duckdb.connect() as base:
        base.register("lines", lines)
        rows = base.sql(REASONS).fetchall()
    reasons = [Reason(verdict, reason, n, "; ".join(places)) for verdict, reason, n, places in rows]
    commands = dict.fromkeys(report.run.command for report in reports if report.run.command)
    versions = [_pairs(report.run.versions) for report in reports]
    shared = versions[0] if versions and all(v == versions[0] for v in versions) else ""
    runs = tuple(_made(report, shared) for report in reports)
    return Making(tuple(commands), shared, runs, tuple(reasons))


def _pairs(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _lost(report: Report) -> str:
    """What failing devices cost; empty where none were asked for."""
    lost = report.crowd.lost if report.crowd else ()
    told = [f"{each.what.replace('_', ' ')} {each.count:g}" for each in lost if each.count]
    return ", ".join(told) or ("nothing" if lost else "")


def _labels(report: Report) -> str:
    """What becomes of labels in a crowd; empty where none trained."""
    crowd = report.crowd
    if crowd is None or crowd.labels not in LABELS:
        return ""
    scorer = f": {crowd.blocks[-1].party}" if crowd.labels == "shared" else ""
    return f"{LABELS[crowd.labels]}{scorer}"


def _made(report: Report, shared: str) -> Made:
    names, run = report.names, report.run
    words = [names.regime, names.defense, names.threat, names.attack, names.variant]
    versions = _pairs(run.versions)
    facts = {
        "study": names.study,
        "data, model": ", ".join(part for part in (names.data, names.model) if part),
        "command": run.command,
        "fingerprint": run.fingerprint,
        "hash of the guess, taken before the truth was opened": run.guess_hash,
        "records": _pairs(run.splits),
        "seed, threads, device": f"{run.seed}, {run.threads}, {run.device}",
        "attack kept from the truth in a process of its own": "yes" if run.sealed else "no",
        "labels": _labels(report),
        "lost to faults": _lost(report),
        "versions": "" if versions == shared else versions,
        "why not": report.reason,
    }
    title = names.row or " · ".join(word for word in words if word) or "run"
    told = tuple((name, value) for name, value in facts.items() if value)
    return Made(title, told, run.config, (*run.warnings, *run.notices))
