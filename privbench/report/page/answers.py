"""What came out, a sentence a regime: computed from verdicts, in words anyone can follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import duckdb
import pyarrow as pa

from privbench.report.columns import HEADLINE, SUMMARY
from privbench.report.page.words import (
    COLUMNS,
    capital,
    listed,
    of_hundred,
    regime,
    seats,
    share,
    who,
)
from privbench.scoring.score import LOWER_LEAKS

MOST = 60
"""Regimes that are told of."""
RANK = {
    "leaks": 0,
    "by construction": 0,
    "as centralized": -1,
    "not shown to leak": -2,
    "too few": -3,
}
"""Verdicts, the most telling highest."""
STAKES = ("reconstruction", "attribute", "property", "label", "membership", "audit", "inversion")
"""Goals, the one that hurts people most first."""
SHARES = ("nearly every", "most", "some", "a few")


class Row(NamedTuple):
    """A headline score, as the table has it."""

    run: int
    data: str
    model: str
    regime: str
    defense: str
    threat: str
    column: str | None
    goal: str
    attack: str
    variant: str
    seat: str | None
    value: float
    n: int | None
    blind: float | None
    verdict: str


QUERY = f"""
SELECT {", ".join(f'"{name}"' for name in Row._fields)} FROM lines
WHERE metric = CASE goal {" ".join(f"WHEN '{g}' THEN '{m}'" for g, m in HEADLINE.items())}
               ELSE metric END AND value IS NOT NULL
"""


@dataclass(frozen=True)
class Seen:
    """One seat's headline score."""

    seat: str
    value: float
    n: int
    blind: float
    verdict: str


@dataclass(frozen=True)
class Finding:
    """What one run found: its seats, and the one that stands for all."""

    threat: str
    column: str
    goal: str
    seats: tuple[Seen, ...]
    main: Seen
    attack: str
    tried: int = 1  # runs of that threat and goal, of which this is the most telling


@dataclass(frozen=True)
class Answer:
    """A regime's answer: the main sentence, and one for each other way in.

    ``anchor`` is its heading's text; ``verdict`` that of the main sentence.
    """

    heading: str
    verdict: str
    main: str
    others: tuple[tuple[str, str], ...]  # verdict and sentence


def answers(lines: pa.Table, thing: str = "record") -> tuple[Answer, ...]:
    """One answer a regime (and defence), in the table's order; ``thing`` is what is private."""
    with duckdb.connect() as base:
        base.register("lines", lines)
        rows = base.sql(QUERY).fetchall()
        regimes = base.sql(
            "SELECT data, model, regime, defense FROM lines GROUP BY ALL ORDER BY min(run)"
        ).fetchall()
    groups: dict[tuple[str, ...], dict[tuple[int, str], list[Row]]] = {}
    for row in map(Row._make, rows):
        group = groups.setdefault((row.data, row.model, row.regime, row.defense), {})
        group.setdefault((row.run, row.goal), []).append(row)
    mixed = len({key[:2] for key in regimes}) > 1
    found = []
    for data, model, name, defense in regimes[:MOST]:
        heading = regime(name, defense) + (f" ({data}, {model})" if mixed else "")
        group = groups.get((data, model, name, defense), {})
        findings = _strongest([_finding(each) for each in group.values()])
        found.append(_answer(heading, findings, thing))
    return tuple(found)


def _finding(rows: Sequence[Row]) -> Finding:
    """One run's: the worst seat stands for many."""
    main = next((row for row in rows if row.seat == "worst"), rows[0])
    seats_seen = tuple(_seen(row) for row in rows if row.seat not in SUMMARY)
    attack = main.attack + (f" ({main.variant})" if main.variant else "")
    return Finding(main.threat, main.column or "", main.goal, seats_seen, _seen(main), attack)


def _seen(row: Row) -> Seen:
    blind = math.nan if row.blind is None else row.blind
    return Seen(row.seat or "", row.value, row.n or 0, blind, row.verdict)


def _weight(finding: Finding) -> tuple[int, int, int, float]:
    """Most telling last: by verdict, by what is at stake, by seats attacked, by how much."""
    verdict, gain = finding.main.verdict, _gain(finding, finding.main)
    rank = RANK.get(verdict, -len(RANK))
    tier = -SHARES.index(share(gain)) if math.isfinite(gain) else -len(SHARES)
    return rank, tier, len(finding.seats), gain if math.isfinite(gain) else -1.0


def _strongest(findings: Sequence[Finding]) -> list[Finding]:
    """Of each threat and goal the most telling run; most telling first."""
    best: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        best.setdefault((finding.threat, finding.goal), []).append(finding)
    kept = [replace(max(each, key=_weight), tried=len(each)) for each in best.values()]
    order = list(COLUMNS)
    kept.sort(key=lambda f: order.index(f.column) if f.column in order else len(order))
    kept.sort(key=lambda f: _weight(f)[1], reverse=True)
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


def sentence(finding: Finding, thing: str) -> str:
    """What a run found, in one sentence or two."""
    many = len(finding.seats) > 1
    told = _of_many(finding, thing) if many else _of_one(finding, thing)
    tried = f" Most telling of {finding.tried} runs: {finding.attack}." if finding.tried > 1 else ""
    return capital(told) + tried


def _of_one(finding: Finding, thing: str) -> str:
    main, subject = finding.main, who(finding.threat, finding.main.seat)
    deed, proof = _deed(finding, main, thing)
    match main.verdict:
        case "by construction":
            return f"{subject} {_handed(finding, main, thing)}."
        case "as centralized":
            return f"{subject} {deed}, exactly as after centralized training ({proof})."
        case "leaks":
            return f"{subject} {deed} ({proof})."
        case "too few":
            return f"there were too few records to say what {subject} {deed.replace('can', 'could', 1)}."
    return f"{subject} was not shown to do better than guessing ({proof})."


def _of_many(finding: Finding, thing: str) -> str:
    """How many of the seats leak, which, and how much."""
    names, total = finding.seats, len(finding.seats)
    noun = seats(finding.threat, total)
    leaking = [seen for seen in names if seen.verdict in ("leaks", "by construction")]
    if not leaking:
        few = all(seen.verdict == "too few" for seen in names)
        _, proof = _deed(finding, finding.main, thing)
        if few:
            return f"for {total} {noun} there were too few records to say what they can find out."
        return f"none of {total} {noun} was shown to do better than guessing (the worst: {proof})."
    most = max(_gain(finding, seen) for seen in leaking)
    worst = _gain(finding, finding.main)  # estimated on other records than it was selected on
    top = SHARES.index(share(min(most, worst) if math.isfinite(worst) else most))
    group = [seen for seen in leaking if SHARES.index(share(_gain(finding, seen))) <= top]
    which = f"{len(group)} of {total}" if len(group) < total else f"all {total}"
    listing = f" ({listed([seen.seat for seen in group])})"
    if finding.main.verdict == "by construction":
        return f"{which} {noun}{listing} {_handed(finding, finding.main, thing, many=True)}."
    deed, proof = _deed(finding, finding.main, thing)
    rest = [seen for seen in leaking if seen not in group]
    safe = total - len(leaking)
    told = f"{which} {noun}{listing} {deed} (the worst: {proof})."
    if rest:
        deed, proof = _deed(finding, max(rest, key=lambda seen: _gain(finding, seen)), thing)
        told += f" {len(rest)} more {deed} (at most {proof})."
    return told + (f" For the other {safe} this was not shown." if safe else "")


def _gain(finding: Finding, seen: Seen) -> float:
    """How far between guessing and knowing all."""
    if finding.goal == "membership":
        return 2 * abs(seen.value - 0.5)
    return seen.value


def _deed(finding: Finding, seen: Seen, thing: str) -> tuple[str, str]:
    """What a seat can do, and the numbers that say so."""
    value, blind = seen.value, seen.blind
    guess = f"guessing: {of_hundred(blind)}" if math.isfinite(blind) else "guessing: not known"
    if not math.isfinite(value):
        return "can find out", "no number"
    match finding.goal:
        case "reconstruction":
            word = share(value)
            plural = "" if word == "nearly every" else "s"
            return (
                f"can pick out {word} private {thing}{plural}",
                f"{of_hundred(value, seen.n)}; {guess}",
            )
        case "membership":
            how = (
                "nearly always"
                if value >= 0.95
                else "often"
                if value >= 0.7
                else "more often than by guessing"
            )
            return (
                f"can tell, {how}, whose record was trained on",
                f"right for {of_hundred(value)} pairs; {guess}",
            )
        case "inversion":
            return (
                "can draw recognisable pictures of what the model learned",
                f"{of_hundred(value, seen.n)} classes recognised; guessing: {of_hundred(blind, seen.n)}",
            )
    better = "less is worse" if finding.goal in LOWER_LEAKS else finding.goal
    return f"can find out more than by guessing ({better})", f"{value:.3g}; guessing: {blind:.3g}"


def _handed(finding: Finding, seen: Seen, thing: str, many: bool = False) -> str:
    """What the protocol itself hands over."""
    verb = "are" if many else "is"
    if finding.goal == "membership":
        return f"{'see' if many else 'sees'} by construction whose records are trained on"
    word = "every" if seen.value >= 0.995 else share(seen.value)
    plural = "" if word.endswith("every") else "s"
    return f"{verb} handed {word} private {thing}{plural}: the protocol sends them, nothing is inferred"
