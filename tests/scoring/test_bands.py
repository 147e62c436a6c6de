"""Bands hold whole curves, as often as they say."""

import numpy as np
import pytest
from scipy.stats import norm

from privbench.scoring.bands import band
from privbench.scoring.score import Measured


def measured(values, records=None, metric="psnr_db"):
    numbers = np.arange(len(values)) if records is None else records
    return Measured(metric, numbers, np.asarray(values, dtype=float))


def test_a_band_is_wider_than_the_interval_of_one_point():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 60))
    alone = [band([[measured(v)]], np.random.default_rng(1))[0] for v in values]
    together = band([[measured(v)] for v in values], np.random.default_rng(1))
    widths = [(t.high - t.low) / (a.high - a.low) for t, a in zip(together, alone, strict=True)]
    assert np.median(widths) > 1.2
    assert [t.value for t in together] == pytest.approx(values.mean(axis=1))


def test_points_that_say_the_same_need_no_wider_band():
    values = np.random.default_rng(0).normal(size=60)
    alone = band([[measured(values)]], np.random.default_rng(1))[0]
    together = band([[measured(values)]] * 12, np.random.default_rng(1))
    assert all(t.high - t.low < 1.05 * (alone.high - alone.low) for t in together)


def test_rates_of_nothing_and_of_everything_have_a_band_too():
    none, every = measured([0.0] * 40, metric="identification"), measured([1.0] * 40)
    low, high = band(
        [[none], [measured(every.values, metric="identification")]], np.random.default_rng(0)
    )
    assert low.low == 0 and 0.05 < low.high < 0.25
    assert high.high == 1 and 0.75 < high.low < 0.95


def test_repetitions_that_differ_widen_the_band():
    flat = [measured(np.full(50, x)) for x in (0.0, 1.0, 2.0)]
    (point,) = band([flat], np.random.default_rng(0))
    assert point.value == 1 and point.high - point.low > 1.5


def test_records_that_a_point_lacks_do_not_count():
    some = measured([1.0, 3.0], records=np.array([4, 9]))
    (point, _) = band([[some], [measured(np.zeros(20))]], np.random.default_rng(0))
    assert point.value == 2


@pytest.mark.slow
def test_ninety_five_curves_in_a_hundred_lie_within():
    rng, inside = np.random.default_rng(0), 0
    truth = np.linspace(0.1, 0.9, 9)
    for trial in range(400):
        mixed = 0.7 * rng.normal(size=(80, 1)) + 0.51**0.5 * rng.normal(size=(80, 9))
        hits = mixed < norm.ppf(truth)  # records are easy or hard at all points
        found = band(
            [[measured(hits[:, j], metric="identification")] for j in range(9)],
            np.random.default_rng(trial),
        )
        inside += all(p.low <= t <= p.high for p, t in zip(found, truth, strict=True))
    assert inside >= 400 * 0.95 - 2.5 * (400 * 0.95 * 0.05) ** 0.5
