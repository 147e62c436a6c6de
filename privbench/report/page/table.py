"""The table's rows as the page carries them: column by column, words that repeat kept once."""

from __future__ import annotations

from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from privbench.report.columns import HEADLINES, SUMMARY
from privbench.report.page.words import COLUMNS

MOST = 20_000
"""Rows that a page holds at most: it stays below 10 MiB and filters without a pause."""

SHOWN = (
    "study", "row", "data", "model", "regime", "defense", "threat", "column", "seat", "seats",
    "attack", "variant", "goal", "metric", "value", "low", "high", "over", "n", "n_negative",
    "blind", "blind_name", "verdict", "reason", "pairs", "n_pairs", "rows_seen", "steps_seen",
    "capture", "recorded", "accuracy", "bytes_per_sample", "epsilon", "epsilon_covers", "seed",
    "fingerprint", "note", "head", "run", "against_blind", "depth", "share_seen", "epochs_seen", "coalition",
    "power",
)  # fmt: skip

IS_HEAD = f"""
(metric IS NULL OR metric IN {HEADLINES})
AND (coalesce(seats, 1) <= 1 OR coalesce(seat, '') IN {SUMMARY} OR metric IS NULL)
"""
"""The rows that the printed table shows: see ``headlines``."""

ORDER = f"""list_position({list(COLUMNS)}, "column") NULLS LAST, run, place"""


class Sent(NamedTuple):
    """Rows as JSON can say them, and how many do and do not fit.

    ``columns``: of each, the values that occur (``of``) and which of them each row has (``at``).
    """

    columns: dict[str, dict[str, list[Any]]]
    shown: int
    left_out: int


def sent(lines: pa.Table) -> Sent:
    """All rows; where they are too many those of the printed table; the first of them at last."""
    columns = ", ".join(f'"{name}"' for name in SHOWN if name != "head")
    numbered = lines.append_column("place", pa.array(range(lines.num_rows), pa.int64()))
    with duckdb.connect() as base:
        base.register("numbered", numbered)
        inner = f"SELECT {columns}, place, coalesce({IS_HEAD}, false) AS head FROM numbered"
        only = "WHERE head" if lines.num_rows > MOST else ""
        query = f"SELECT * EXCLUDE (place) FROM ({inner}) {only} ORDER BY {ORDER} LIMIT {MOST}"
        table = base.sql(query).to_arrow_table()
    found = {name: _column(table[name]) for name in SHOWN}
    return Sent(found, table.num_rows, lines.num_rows - table.num_rows)


def _column(values: pa.ChunkedArray) -> dict[str, list[Any]]:
    """Values that occur, and which each row has."""
    coded = values.combine_chunks().dictionary_encode(null_encoding="encode")
    return {
        "of": [_plain(v) for v in coded.dictionary.to_pylist()],
        "at": coded.indices.to_pylist(),
    }


def _plain(value: Any) -> Any:
    """As strict JSON can say it: words for numbers that are none."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value
