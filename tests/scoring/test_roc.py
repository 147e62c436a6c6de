"""ROC curves: the slow obvious way, seats that are drawn, odd scores."""

import numpy as np
import pytest

from privbench.scoring import statistics
from privbench.scoring.roc import POINTS, curves
from privbench.scoring.score import Measured, SeatResult


def result(seat: str, gap: float, n: int = 120, seed: int = 0) -> SeatResult:
    rng = np.random.default_rng(seed)
    bits = np.arange(n) % 2 == 0
    scores = rng.normal(size=n) + gap * bits
    return SeatResult(seat, (), (Measured("auc", np.arange(n), scores, bits),))


@pytest.mark.slow
def test_each_point_is_the_rate_that_the_table_would_print():
    seen = result("one", 1.0, 2400)
    (curve,) = curves([seen], 0)
    (measured,) = seen.measured
    assert len(curve.fpr) == POINTS
    assert curve.reliable_from == 10 / 1200
    assert (curve.fpr[0], curve.fpr[-1], curve.tpr[-1]) == (1 / 1200, 1.0, 1.0)
    for rate, value, low, high in zip(
        curve.fpr[:-1], curve.tpr, curve.low, curve.high, strict=False
    ):
        assert value == statistics.tpr_at(measured.values, measured.member, rate)
        assert low <= value <= high
        exact = statistics.tpr_interval(
            measured.values, measured.member, rate, np.random.default_rng(0)
        )
        assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.04)
    assert list(curve.tpr) == sorted(curve.tpr)


def test_three_of_many_seats_are_drawn():
    seats = [result(f"seat-{i}", gap, seed=i) for i, gap in enumerate((0.0, 3.0, 1.0, 9.0, 0.5))]
    found = curves(seats, 0)
    assert [curve.seat for curve in found] == ["seat-3", "seat-2", "seat-0"]
    assert curves(seats, 0) == found


@pytest.mark.parametrize(
    ("draws", "least"), [(15, 0.8), pytest.param(60, 0.85, marks=pytest.mark.slow)]
)
def test_the_band_covers(draws, least):
    inside = []
    for seed in range(draws):
        (curve,) = curves([result("one", 1.0, 400, seed)], seed)
        at = next(i for i, rate in enumerate(curve.fpr) if rate >= 0.1)
        truth = 1 - 0.5 * (1 + _erf((_quantile(1 - curve.fpr[at]) - 1) / np.sqrt(2)))
        inside.append(curve.low[at] <= truth <= curve.high[at])
    assert np.mean(inside) >= least


@pytest.mark.parametrize("scores", [np.zeros(40), np.arange(40.0), -np.arange(40.0)])
def test_ties_and_scores_that_part_the_two(scores):
    bits = np.arange(40) >= 20
    seen = SeatResult("one", (), (Measured("auc", np.arange(40), scores, bits),))
    (curve,) = curves([seen], 0)
    for low, value, high in zip(curve.low, curve.tpr, curve.high, strict=True):
        assert 0 <= low <= value <= high <= 1


def test_no_curve_without_both_kinds():
    bits = np.ones(40, dtype=bool)
    alone = SeatResult("one", (), (Measured("auc", np.arange(40), np.zeros(40), bits),))
    hits = SeatResult("two", (), (Measured("identification", np.arange(40), np.zeros(40)),))
    assert curves([alone, hits], 0) == ()


def _erf(x: float) -> float:
    from math import erf

    return erf(x)


def _quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
