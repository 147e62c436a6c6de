"""What came out, a sentence a regime: computed from verdicts, in words anyone can follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import duckdb
import pyarrow as pa

from privbench.report.columns import HEADLINE, HEADLINES, SUMMARY
from privbench.report.page.sentences import Finding, Seen, gain, sentence, tier
from privbench.report.page.words import COLUMNS, regime
from privbench.scoring.score import LOWER_LEAKS

MOST = 60
"""Regimes that are told of."""
RANK = {
    "claim broken": 1,
    "leaks": 0,
    "by construction": 0,
    "as centralized": -1,
    "not shown to leak": -2,
    "consistent": -2,
    "no claim": -2,
    "too few": -3,
    "too weak to tell": -3,
}
"""Verdicts, the most telling highest."""
STAKES = (
    *("reconstruction", "attribute", "property", "label", "membership"),
    *("recurrence", "audit", "inversion"),
)
"""Goals, the one that hurts people most first."""


class Row(NamedTuple):
    """A score, as the table has it."""

    run: int
    data: str
    model: str
    regime: str
    defense: str
    threat: str
    column: str
    goal: str
    metric: str
    attack: str
    variant: str
    seat: str
    value: float
    low: float
    high: float
    n: int
    blind: float | None
    reliable: bool
    verdict: str


SCORES = f"""
SELECT {", ".join(f'"{name}"' for name in Row._fields)} FROM lines
WHERE (metric IN {HEADLINES} OR goal NOT IN {tuple(HEADLINE)}) AND value IS NOT NULL
"""
REFUSED = "SELECT run, sum(seats) FROM lines WHERE metric IS NULL AND status = 'not_applicable' GROUP BY run"
REGIMES = "SELECT data, model, regime, defense FROM lines GROUP BY ALL ORDER BY min(run)"


@dataclass(frozen=True)
class Answer:
    """A regime's answer: the main sentence with its verdict, and one for each other way in."""

    heading: str
    verdict: str
    main: str
    others: tuple[tuple[str, str], ...]  # verdict and sentence


def answers(lines: pa.Table, thing: str = "record") -> tuple[Answer, ...]:
    """One answer a regime (and defence), in the table's order; ``thing`` is what is private."""
    with duckdb.connect() as base:
        base.register("lines", lines)
        rows = base.sql(SCORES).fetchall()
        refused = dict(base.sql(REFUSED).fetchall())
        regimes = base.sql(REGIMES).fetchall()
    groups: dict[tuple[str, ...], dict[tuple[int, str], list[Row]]] = {}
    for row in map(Row._make, rows):
        group = groups.setdefault((row.data, row.model, row.regime, row.defense), {})
        group.setdefault((row.run, row.goal), []).append(row)
    mixed = len({key[:2] for key in regimes}) > 1
    found = []
    for data, model, name, defense in regimes[:MOST]:
        heading = regime(name, defense) + (f" ({data}, {model})" if mixed else "")
        group = groups.get((data, model, name, defense), {})
        findings = [_finding(each, refused.get(run) or 0) for (run, _), each in group.items()]
        found.append(_answer(heading, _strongest(findings), thing))
    return tuple(found)


def _finding(rows: Sequence[Row], refused: int) -> Finding:
    """One run's: of a goal without a headline metric the first counts; the worst seat stands for many."""
    rows = [row for row in rows if row.metric == rows[0].metric]
    main = next((row for row in rows if row.seat == "worst"), rows[0])
    return Finding(
        main.threat,
        main.column or "",
        main.goal,
        main.metric,
        tuple(_seen(row) for row in rows if row.seat not in SUMMARY),
        _seen(main),
        main.attack + (f" ({main.variant})" if main.variant else ""),
        int(refused),
    )


def _seen(row: Row) -> Seen:
    blind = math.nan if row.blind is None else row.blind
    beyond = row.high < blind if row.metric in LOWER_LEAKS else row.low > blind
    clear = bool(row.reliable and beyond)
    return Seen(row.seat or "", row.value, row.n or 0, blind, row.verdict, clear)


def _weight(finding: Finding) -> tuple[int, int, int, float]:
    """Most telling last: by verdict, by how much in words, by seats attacked, by how much."""
    most = gain(finding, finding.main)
    rank = RANK.get(finding.main.verdict, -len(RANK))
    return rank, -tier(most), len(finding.seats), most if math.isfinite(most) else -1.0


def _strongest(findings: Sequence[Finding]) -> list[Finding]:
    """Of each threat and goal the most telling run; most telling first."""
    best: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        best.setdefault((finding.threat, finding.goal), []).append(finding)
    kept = [replace(max(each, key=_weight), tried=len(each)) for each in best.values()]
    order = list(COLUMNS)
    kept.sort(key=lambda f: order.index(f.column) if f.column in order else len(order))
    kept.sort(key=lambda f: tier(gain(f, f.main)))
    kept.sort(key=lambda f: STAKES.index(f.goal) if f.goal in STAKES else len(STAKES))
    return sorted(kept, key=lambda f: RANK.get(f.main.verdict, -len(RANK)), reverse=True)


def _answer(heading: str, findings: Sequence[Finding], thing: str) -> Answer:
    if not findings:
        return Answer(heading, "", "Nothing could be measured here; the reasons stand below.", ())
    told = [(finding.main.verdict, sentence(finding, thing)) for finding in findings]
    verdict, main = told[0]
    if verdict == "not shown to leak":
        main += " That is no proof of safety: another attack may do better."
    return Answer(heading, verdict, main, tuple(told[1:]))
