"""A figure is written once, in its place, whoever else writes."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ledger import note


def _read(sheet: Path) -> list[dict[str, str]]:
    with sheet.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_figure_that_is_measured_again_replaces_its_line(tmp_path: Path) -> None:
    sheet = tmp_path / "golden.csv"
    for what, replica in (("b", 1.0), ("a", 2.0), ("b", 3.0)):
        note(what, "same", published=1.5, replica=replica, n=4, seconds=0.12, sheet=sheet)
    note("b", 'other, "quoted"', published=None, ours=1 / 3, n=1, seconds=1.0, sheet=sheet)
    rows = _read(sheet)
    assert [(row["what"], row["setting"]) for row in rows] == [
        ("a", "same"), ("b", 'other, "quoted"'), ("b", "same"),
    ]  # fmt: skip
    assert (rows[2]["replica"], rows[2]["ours"], rows[1]["published"]) == ("3.0", "", "")
    assert rows[1]["ours"] == "0.3333"


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    sheet = tmp_path / "golden.csv"
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: note(f"w{i:02}", "", published=i, n=1, seconds=0, sheet=sheet), range(40)
            )
        )
    assert [row["what"] for row in _read(sheet)] == [f"w{i:02}" for i in range(40)]
