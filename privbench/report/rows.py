"""Table rows of many reports at once, as an Arrow table: quick where a frame a report is slow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import pandas as pd
import pyarrow as pa

from privbench.report.columns import COLUMNS, SUMMARY
from privbench.report.report import SEAT_FACTS, Report

FACTS = SEAT_FACTS
SCORE = (
    "goal", "metric", "seat", "value", "low", "high", "n", "n_negative", "blind", "blind_name",
    "reliable", "by_construction", "over", "capture", "note", "power",
)  # fmt: skip
NUMBERS = frozenset({
    "value", "low", "high", "blind", "capture", "accuracy", "bytes_per_sample", "flops_per_sample",
    "epsilon", "delta", "train_seconds", "attack_seconds", "share_seen", "power",
})  # fmt: skip
COUNTS = frozenset({
    "seats", "n", "n_negative", "n_pairs", "rows_seen", "steps_seen", "shadow_models", "queries",
    "seed", "threads", "depth", "epochs_seen", "coalition",
})  # fmt: skip
TRUTHS = frozenset({"reliable", "by_construction", "sealed"})


def _kind(column: str) -> pa.DataType:
    """What a column holds: numbers, counts, truth values or words."""
    if column in NUMBERS:
        return pa.float64()
    if column in COUNTS:
        return pa.int64()
    return pa.bool_() if column in TRUTHS else pa.string()


SCHEMA = pa.schema([pa.field(name, _kind(name)) for name in (*COLUMNS, "note")])
"""The columns of table.csv, and each score's note."""


def rows_of(reports: Iterable[Report]) -> pa.Table:
    """The rows of ``Report.table()`` for each report, one below the other.

    Raises:
        TypeError: a value is of another kind than its column, as in a file that others wrote.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for report in reports:
        _add(report, columns)
    try:
        return pa.Table.from_pydict(columns, schema=SCHEMA)
    except (pa.ArrowException, OverflowError) as cause:
        raise TypeError(str(cause)) from cause


def height(report: Report) -> int:
    """How many rows a report has."""
    return len(report.scores) + len(report.refusals) or 1


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Those rows as a frame with the columns of table.csv."""
    return pd.DataFrame({name: table[name].to_pylist() for name in COLUMNS}, columns=list(COLUMNS))


def csv_of(table: pa.Table) -> str:
    """Those rows as table.csv: the text that pandas writes, quicker where values repeat."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(*(_words(table[name]) for name in COLUMNS), strict=True))
    return text.getvalue()


def _words(column: pa.ChunkedArray) -> list[str]:
    """Values as pandas writes them: counts become floats beside a gap, and no number is a gap."""
    if pa.types.is_integer(column.type) and column.null_count:
        column = column.cast(pa.float64())
    coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    told = ["" if v is None or v != v else str(v) for v in coded.dictionary.to_pylist()]
    return [told[code] for code in coded.indices.to_pylist()]


def _add(report: Report, columns: Mapping[str, list[Any]]) -> None:
    """Append a report's rows: its scores, then its refusals, or the one row that says why none."""
    base = {"status": report.status, "reason": report.reason}
    base |= vars(report.names) | vars(report.target) | vars(report.run)
    parts = []
    if report.scores:
        parts.append(_score_part(report))
    if report.refusals:
        parts.append(
            {
                "status": ["not_applicable"] * len(report.refusals),
                "verdict": ["not applicable"] * len(report.refusals),
                **{
                    n: [getattr(r, n) for r in report.refusals]
                    for n in ("reason", "seats", "column")
                },
            }
        )
    for part in parts or [{"verdict": [report.status.replace("_", " ")]}]:
        count = len(part["verdict"])
        for name, column in columns.items():
            column.extend(part[name] if name in part else repeat(base.get(name), count))


def _score_part(report: Report) -> dict[str, Sequence[Any]]:
    """Columns of the scores' rows, each with what its seat had to go on."""
    scores, worst = report.scores, report.run.worst_column
    single: dict[str, list[tuple[Any, ...]]] = {}
    for seat in report.seats:
        single.setdefault(seat.seat, []).append(tuple(getattr(seat, name) for name in FACTS))
    shared = _shared([facts for each in single.values() for facts in each])
    chosen = [shared if s.seat in SUMMARY else _shared(single.get(s.seat, [])) for s in scores]
    part: dict[str, Sequence[Any]] = {name: [getattr(s, name) for s in scores] for name in SCORE}
    part |= dict(zip(FACTS, zip(*chosen, strict=True), strict=True))
    if worst:
        columns = zip(scores, part["column"], strict=True)
        part["column"] = [worst if score.seat == "worst" else old for score, old in columns]
    same = report.status == "same_as"
    part["verdict"] = ["as centralized" if same else score.verdict() for score in scores]
    part["against_blind"] = [score.against_blind() for score in scores]
    part["seats"] = [len(report.seats)] * len(scores)
    return part


def _shared(facts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The values that all have in common; differing pairs are ``mixed``."""
    if len(facts) == 1:
        return facts[0]
    if not facts:
        return (None,) * len(FACTS)
    values = [set(each) for each in zip(*facts, strict=True)]
    common = [each.pop() if len(each) == 1 else None for each in values]
    if common[FACTS.index("pairs")] is None:
        common[FACTS.index("pairs")] = "mixed"
    return tuple(common)
