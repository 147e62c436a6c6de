"""Reports as dashboards take them: names, numbers, identity."""

from __future__ import annotations

from dataclasses import replace

import pytest

from privbench.report.report import Report
from privbench.sinks.rows import POINTS, row_of


def test_every_number_is_the_tables_own(reports: tuple[Report, ...]) -> None:
    summary = row_of(reports[0]).summary
    score = reports[0].scores[0]
    told = [summary[f"leakage/membership/auc{part}"] for part in ("", "/low", "/high", "/blind")]
    assert told == [score.value, score.low, score.high, score.blind]
    assert summary["leakage/membership/auc/verdict"] == score.verdict()
    assert summary["leakage/membership/tpr_at_1pct_fpr"] == 1 / 3
    assert summary["utility/accuracy"] == 0.1 + 0.2
    assert summary["privacy/epsilon"] == 2.9999999999999996


def test_the_worst_of_many_seats_stands_for_the_run(reports: tuple[Report, ...]) -> None:
    summary = row_of(reports[1]).summary
    key = "leakage/reconstruction/identification"
    assert summary[key] == 0.65
    assert summary[f"{key}/device-1"] == 0.1
    assert f"{key}/low" in summary and f"{key}/device-1/low" not in summary


@pytest.mark.parametrize(("row", "status"), [(2, "not_applicable"), (3, "failed")])
def test_rows_without_scores_are_runs_with_a_reason(
    reports: tuple[Report, ...], row: int, status: str
) -> None:
    told = row_of(reports[row])
    assert told.summary == {"status": status, "reason": reports[row].reason}
    assert told.failed is (status == "failed")


def test_the_same_run_of_the_same_study_keeps_its_key(reports: tuple[Report, ...]) -> None:
    keys = [row_of(report).key for report in reports]
    assert len(set(keys)) == len(keys)
    first = reports[0]
    again = replace(first, run=replace(first.run, attack_seconds=99.0))
    assert row_of(again).key == keys[0]
    other = replace(first, names=replace(first.names, study="mine"))
    assert row_of(other).key != keys[0]


def test_curves_are_thinned_where_few_are_accused_least(reports: tuple[Report, ...]) -> None:
    (curve,) = row_of(reports[0]).curves
    fpr = curve.columns["fpr"]
    assert len(fpr) <= POINTS
    assert fpr[:3] == reports[0].curves[0].fpr[:3] and fpr[-1] == 1.0
