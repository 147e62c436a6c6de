"""The table on the screen."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import pytest
from rich.console import Console

from privbench.contract.attack import COVERED
from privbench.report.folder import table_of
from privbench.report.printed import MOST, headlines, print_table, print_warnings
from privbench.report.report import Names, Report, SeatFacts, Target
from privbench.scoring.score import Score


def _printed(*reports: Report, width: int = 80) -> str:
    stream = io.StringIO()
    print_table(table_of(reports), Console(file=stream, width=width))
    return stream.getvalue()


def _cells(text: str) -> list[list[str]]:
    """Cells of the lines between head and notes; columns start where the head's words do."""
    lines = text.splitlines()
    head = next(line for line in lines if line.strip().startswith("regime"))
    at = [head.index(name) for name in ("regime", "threat", "attack", "seat", "leakage")]
    return [
        [line[a:b].strip() for a, b in pairwise(at)]
        for line in lines[lines.index(head) + 2 :]
        if line[at[0] : at[0] + 1].strip() not in ("", "[") and len(line) > at[-1]
    ]


def test_ten_columns(report: Report) -> None:
    head = next(line for line in _printed(report).splitlines() if "regime" in line)
    names = "regime threat attack seat leakage [95 %] blind accuracy epsilon kB/sample verdict"
    assert head.split() == names.split()


def test_a_line_says_what_leaks_and_to_whom(report: Report) -> None:
    text = _printed(report)
    assert ["slicenet", "host", "ridge_decoder", "worst"] in _cells(text)
    assert "ident. 0.750 [0.600, 0.900]" in text
    assert " 0.100 " in text  # blind
    assert " 0.900 " in text  # accuracy
    assert " 1.23 " in text  # kB a sample
    assert " leaks" in text


def test_reasons_stand_below_the_table_once(report: Report) -> None:
    other = replace(report, names=replace(report.names, regime="split"))
    text = _printed(report, other)
    assert text.count("not applicable [1]") == 2
    assert text.count("[1] it needs pairs, which this seat does not have") == 1
    assert "[2]" not in text
    assert text.index("[1] it needs") > text.rindex("ridge_decoder")
    assert "3 seats" in text


def test_many_seats_are_summed_up_and_one_is_named(report: Report, score: Score) -> None:
    seats = tuple(replace(score, seat=seat) for seat in ("worst", "median", "best", "device-0"))
    many = replace(report, scores=seats, refusals=())
    assert list(headlines(many.table())["seat"]) == ["worst", "median", "best"]
    assert "the worst learns most" in _printed(many)
    single = replace(many, scores=seats[3:], seats=(SeatFacts("device-0", "peer"),))
    assert list(headlines(single.table())["seat"]) == ["device-0"]


def test_only_headline_metrics_are_printed(report: Report, score: Score) -> None:
    both = replace(report, scores=(score, replace(score, metric="psnr_db")), refusals=())
    assert list(headlines(both.table())["metric"]) == ["identification"]


@pytest.mark.parametrize(
    ("covers", "threat", "shown"),
    [
        ("released", "released", "3.00"),
        ("released", "api", "3.00"),  # queries are less than weights
        ("released", "host", "none"),
        ("released", "server", "none"),
        ("updates", "server", "3.00"),
        ("updates", "released", "3.00"),
        ("updates", "host", "none"),
        ("none", "host", "none"),
    ],
)
def test_epsilon_is_printed_only_for_the_view_that_it_covers(
    report: Report, covers: str, threat: str, shown: str
) -> None:
    target = Target(0.5, epsilon=3.0, delta=1e-5, epsilon_covers=covers)
    one = replace(report, target=target, names=replace(report.names, threat=threat), refusals=())
    assert f" {shown} " in _printed(one)


def test_defenses_and_variants_are_told_apart(report: Report) -> None:
    names = replace(report.names, defense="gaussian_noise", variant="high")
    text = _printed(replace(report, names=names))
    assert "slicenet +gaussian_noise" in text
    assert "ridge_decoder (high)" in text


def test_a_narrow_screen_loses_no_number(report: Report) -> None:
    text = _printed(report, width=40)
    assert "ident. 0.750 [0.600, 0.900]" in text
    assert "accuracy" in text
    assert "kB/sample" in text


def test_words_that_look_like_markup_are_printed_as_they_are(report: Report) -> None:
    failed = Report(Names(regime="given", threat="released", attack="mine"), "failed", "x[bold]y")
    assert "[1] x[bold]y" in _printed(failed)
    assert "failed [1]" in _printed(failed)


def test_a_table_of_thousands_is_cut_and_counted(report: Report) -> None:
    text = _printed(*[report] * (MOST // 2 + 2))
    assert text.count("not applicable [1]") == MOST // 2
    assert "and 4 lines more" in text


def test_where_seeds_differ_each_line_says_its_own(report: Report) -> None:
    other = replace(report, run=replace(report.run, seed=8))
    text = _printed(report, other)
    assert "(seed 7)" in text and "(seed 8)" in text
    assert "seed" not in _printed(report, report)


def test_warnings_are_said_once_with_the_regimes_that_they_are_of(report: Report) -> None:
    stream = io.StringIO()
    other = replace(
        report,
        names=replace(report.names, regime="split"),
        run=replace(report.run, warnings=("too small", "the target learned nothing")),
    )
    small = replace(report, run=replace(report.run, warnings=("too small",)))
    print_warnings((small, small, other), Console(file=stream, width=80))
    assert stream.getvalue().splitlines() == [
        "warning: too small",
        "warning (split): the target learned nothing",
    ]


def test_a_report_prints_as_its_table(report: Report) -> None:
    assert "ident. 0.750 [0.600, 0.900]" in str(report)
    assert "\x1b" not in str(report)


def test_a_likeness_that_guessing_beats_says_so(report: Report) -> None:
    """Re-identified, yet less like the original than the mean image: nobody may misread it."""
    score = replace(report.scores[0], goal="reconstruction", seat="host")
    told = replace(score, metric="identification", value=0.9, low=0.8, high=0.95, blind=0.002)
    psnr = replace(score, metric="psnr_db", value=8.0, low=7.5, high=8.5, blind=12.3)
    names = replace(report.names, goal="reconstruction")
    text = str(replace(report, names=names, scores=(told, psnr), seats=(), refusals=()))
    assert "leaks [1]" in text
    assert (
        "[1] Likeness: worse than guessing. What was rebuilt has 8.0 dB, where the best guess"
        in text
    )
    worse = replace(told, value=0.0, low=0.0, high=0.001)
    text = str(replace(report, names=names, scores=(worse,), seats=(), refusals=()))
    assert "not shown to leak, worse than guessing" in text


def test_the_page_knows_what_a_guarantee_covers() -> None:
    script = (files("privbench.report.page") / "table.js").read_text()
    told = re.search(r"const COVERED = \{(.*?)\};", script, re.DOTALL)
    assert told is not None
    lists = re.findall(r"(\w+): \[(.*?)\]", told[1])
    assert {name: tuple(re.findall(r"\w+", threats)) for name, threats in lists} == COVERED


def test_seats_that_chance_alone_orders_are_said_to_be_alike(report: Report) -> None:
    for best, said in ((0.7, True), (0.5, False)):
        values = {"worst": 0.6, "median": 0.6, "best": best}
        scores = tuple(
            Score("membership", "auc", seat, value, 0.4, 0.8, n=9, n_negative=9, blind=0.5)
            for seat, value in values.items()
        )
        assert ("do not differ beyond chance" in _printed(replace(report, scores=scores))) is said


def test_an_audit_that_observed_too_little_says_what_to_ask_for(report: Report) -> None:
    score = Score(
        "audit", "epsilon_composed", "worst", 0.8, 0.8, float("inf"), n=400, n_negative=400, blind=0.0,
        reliable=False, note="at least 0.8; fewer than 1,000 observations a side", claim=3.0,
    )  # fmt: skip
    text = _printed(replace(report, scores=(score,)))
    assert "too weak to tell [1]" in text and "regime.learning.canaries" in text


def test_a_report_prints_what_to_doubt_of_it(report: Report) -> None:
    assert "warning" not in str(report)
    doubted = replace(report, run=replace(report.run, warnings=("it learned nothing",)))
    assert str(doubted).rstrip().endswith("warning: it learned nothing")
