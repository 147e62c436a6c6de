"""Bars on a terminal, nothing elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from privbench.report.bars import WHOLE, Bars, bars


def test_each_bar_says_what_is_done_and_how_much_is_left() -> None:
    screen = io.StringIO()
    shown = Bars(Console(file=screen, force_terminal=True, width=120))
    shown.move(WHOLE, "rows", 1, 4)
    shown.move(7, "a row: training", 3, 10)
    shown.move(7, "a row: attack", 0, 0)
    shown.move(7, "a row: attack", 2, 5)
    shown.end(7)
    shown.end(7)
    shown.move(WHOLE, "rows", 2, 4)
    shown.close()
    for words in ("rows", "2/4", "time left", "so far"):
        assert words in screen.getvalue()


def test_where_nobody_looks_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as tell:
        tell("training", 1, 2)
    seen = capsys.readouterr()
    assert seen.out == seen.err == ""
