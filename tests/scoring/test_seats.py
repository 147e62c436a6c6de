import numpy as np
import pytest

from privbench.scoring import rates, statistics
from privbench.scoring.score import Measured, Score, SeatResult
from privbench.scoring.seats import bond, halves, selected, summarise


def hits_of(seat, hits, metric="identification"):
    """A seat's result from one value a victim."""
    records = np.arange(len(hits))
    found = rates.clopper_pearson(int(hits.sum()), len(hits))
    score = Score("reconstruction", metric, seat, *found[:3], n=len(hits), blind=0.002)
    return SeatResult(seat, (score,), (Measured(metric, records, hits.astype(float)),))


def named(scores, seat):
    return next(score for score in scores if score.seat == seat)


def many(seed, rates, victims=100):
    rng = np.random.default_rng(seed)
    return [hits_of(f"host-{i}", rng.random(victims) < r) for i, r in enumerate(rates)]


def test_the_worst_of_equal_seats_is_not_overstated():
    """50 hosts, a true rate of 0.10, 100 victims: the raw maximum is 0.17."""
    raw, worst, best, held = [], [], [], 0
    for seed in range(40):
        results = many(seed, [0.1] * 50)
        scores = summarise(results, seed)
        raw.append(max(result.scores[0].value for result in results))
        worst.append(named(scores, "worst").value)
        best.append(named(scores, "best").value)
        held += named(scores, "worst").low <= 0.1 <= named(scores, "worst").high
    assert np.mean(raw) == pytest.approx(0.17, abs=0.01)
    assert np.mean(worst) == pytest.approx(0.10, abs=0.015)
    assert np.mean(best) == pytest.approx(0.10, abs=0.015)
    assert held >= 32  # a coverage of 0.95 gives fewer once in a thousand


@pytest.mark.parametrize("choices", [2, 5, 12])
def test_two_halves_that_choose_among_the_same_are_bound_to_each_other(choices):
    first, second = np.random.default_rng(0).normal(size=(2, 40_000, choices))
    of_second = np.take_along_axis(second, first.argmax(1)[:, None], 1)[:, 0]
    of_first = np.take_along_axis(first, second.argmax(1)[:, None], 1)[:, 0]
    assert bond(choices) == pytest.approx(np.corrcoef(of_first, of_second)[0, 1], abs=0.015)


def test_one_choice_binds_nothing():
    assert bond(1) == 0.0
    assert bond(2) == pytest.approx(1 / np.pi)


def _equal_seats(metric, rng):
    """Seats that all have the same true value, and that value."""
    inside = np.arange(200) < 100
    if metric == "auc":
        return [
            Measured(metric, np.arange(200), rng.normal(size=200), inside) for _ in range(5)
        ], 0.5
    if metric == "psnr":
        return [Measured(metric, np.arange(100), rng.normal(12, 1, 100)) for _ in range(5)], 12.0
    hits = [(rng.random(200) < 0.3).astype(float) for _ in range(5)]
    return [Measured(metric, np.arange(200), one) for one in hits], 0.3


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["auc", "psnr", "identification"])
@pytest.mark.parametrize("direction", [1, -1])
def test_the_interval_of_an_extreme_seat_holds_the_truth(metric, direction):
    held = []
    for trial in range(1000):
        rng = np.random.default_rng(trial)
        measured, truth = _equal_seats(metric, rng)
        interval, _ = selected(measured, halves(measured, rng), direction, rng)
        held.append(interval.low <= truth <= interval.high)
    assert 0.91 <= np.mean(held) <= 0.985  # three standard errors around 0.93 to 0.965


def test_a_seat_that_is_worse_is_found():
    scores = summarise(many(0, [0.1] * 11 + [0.6]), 0)
    assert named(scores, "worst").value == pytest.approx(0.6, abs=0.12)
    assert named(scores, "median").value == pytest.approx(0.1, abs=0.05)
    assert named(scores, "worst").verdict() == "leaks"
    assert "12 seats" in named(scores, "worst").note


def test_small_errors_are_the_worst_ones():
    rng = np.random.default_rng(0)
    results = [hits_of(f"h{i}", rng.normal(m, 0.01, 40), "mse") for i, m in enumerate((0.1, 0.5))]
    scores = summarise(results, 0)
    assert named(scores, "worst").value == pytest.approx(0.1, abs=0.01)
    assert named(scores, "best").value == pytest.approx(0.5, abs=0.01)
    assert named(scores, "median").value == pytest.approx(0.3, abs=0.01)


def test_one_seat_stands_for_itself():
    results = many(0, [0.5])
    assert summarise(results, 0) == results[0].scores
    assert summarise([], 0) == ()


def test_membership_seats_are_halved_by_bit():
    rng = np.random.default_rng(0)
    bits = np.arange(200) % 4 == 0
    results = []
    for i, shift in enumerate((0.0, 0.0, 2.0)):
        values = rng.normal(0, 1, 200) + shift * bits
        found = statistics.auc_interval(values, bits, rng)
        score = Score("membership", "auc", f"h{i}", *found[:3], n=50, n_negative=150, blind=0.5)
        fixed = Score("membership", "balanced_accuracy", f"h{i}", 0.5, 0.4, 0.6, n=50, blind=0.5)
        records = np.arange(200)
        measured = (
            Measured("auc", records, values, bits),
            Measured("balanced_accuracy", records, values, bits, 1.0),
        )
        results.append(SeatResult(f"h{i}", (score, fixed), measured))
    worst = [score for score in summarise(results, 0) if score.seat == "worst"]
    assert worst[0].value == pytest.approx(0.92, abs=0.05)
    assert worst[1].value == pytest.approx(0.84, abs=0.08)
    assert all(score.low < score.value < score.high for score in worst)
    assert worst[0].verdict() == "leaks"


def test_seats_that_saw_different_victims():
    rng = np.random.default_rng(0)
    results = []
    for i in range(6):
        result = hits_of(f"h{i}", rng.random(50) < 0.3)
        moved = Measured("identification", np.arange(50) + 7 * i, result.measured[0].values)
        results.append(SeatResult(f"h{i}", result.scores, (moved,)))
    assert 0.1 < named(summarise(results, 0), "worst").value < 0.55


def test_no_spread_is_no_certainty():
    bits = np.arange(80) % 2 == 0
    score = Score("membership", "auc", "h", 1.0, 0.9, 1.0, n=40, n_negative=40, blind=0.5)
    parted = (Measured("auc", np.arange(80), 1.0 * bits, bits),)
    every = [hits_of(f"h{i}", np.ones(40)) for i in range(3)]
    none = [hits_of(f"h{i}", np.zeros(40)) for i in range(3)]
    members = [SeatResult(f"h{i}", (score,), parted) for i in range(3)]
    for seat in ("worst", "median", "best"):
        least = 0.9 if seat == "median" else 0.88  # bound seats: 40 victims count as 29.5
        found = named(summarise(every, 0), seat)
        assert (found.value, found.high) == (1.0, 1.0) and least < found.low < least + 0.02
        found = named(summarise(members, 0), seat)
        assert (found.value, found.high) == (1.0, 1.0) and 0.9 < found.low < 0.92
        found = named(summarise(none, 0), seat)
        assert (found.value, found.low) == (0.0, 0.0) and 0.98 < found.high + least < 1.0


def test_too_few_victims_to_halve():
    scores = summarise([hits_of("a", np.ones(1)), hits_of("b", np.zeros(1))], 0)
    assert named(scores, "worst").verdict() == "too few"
