import numpy as np
import pytest
from scipy import stats

from privbench.scoring import rates, statistics

EXACT = 179  # of 200: one-sided exact binomial test at level 0.001 of a coverage of 0.95
BOOTSTRAP = 171  # the same of a bootstrap's coverage, which may be 0.92


def gaussian(seed, mu, each=500):
    """Scores of an ideal attack: members are shifted by mu."""
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(mu, 1, each), rng.normal(0, 1, each)])
    return scores, np.arange(2 * each) < each, np.random.default_rng([seed, 1])


def test_clopper_pearson_known_values():
    assert rates.clopper_pearson(0, 10)[:3] == pytest.approx((0, 0, 0.3085), abs=1e-4)
    assert rates.clopper_pearson(10, 10)[:3] == pytest.approx((1, 0.6915, 1), abs=1e-4)
    assert rates.clopper_pearson(5, 50)[:3] == pytest.approx((0.1, 0.0333, 0.2181), abs=1e-4)
    assert not rates.clopper_pearson(0, 0).reliable


@pytest.mark.parametrize(("mu", "value"), [(0.5, 0.6382), (1, 0.7602), (2, 0.9214), (3, 0.9831)])
def test_auc_of_the_gaussian_oracle(mu, value):
    scores, member, _ = gaussian(0, mu, 40_000)
    assert statistics.auc(scores, member) == pytest.approx(value, abs=0.005)


def test_auc_ranks_ties_in_the_middle():
    member = np.array([True, True, False, False])
    assert statistics.auc(np.zeros(4), member) == 0.5
    assert statistics.auc(np.array([1.0, 0, 0, -1]), member) == pytest.approx(3.5 / 4)


def test_auc_resamples_equal_the_slow_way():
    scores, member, _ = gaussian(3, 1, 20)
    scores = np.concatenate([scores[member], np.sort(scores[~member])]).round(1)
    found = statistics.auc_draws(scores, member, 50, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    inner, outer = statistics.counts(20, 50, rng), statistics.counts(20, 50, rng)
    for value, ins, outs in zip(found, inner, outer, strict=True):
        one = np.concatenate([scores[member].repeat(outs), scores[~member].repeat(ins)])
        bits = np.arange(40) < 20
        assert value == pytest.approx(statistics.auc(one, bits))


def test_tpr_counts_members_above_the_threshold():
    member = np.arange(200) < 100
    scores = np.concatenate([np.linspace(0, 2, 100), np.linspace(0, 1, 100)])
    expected = (scores[:100] > np.sort(scores[100:])[-11]).mean()
    assert statistics.tpr_at(scores, member, 0.1) == pytest.approx(expected)
    assert statistics.tpr_at(-scores, member, 0.1) < 0.1


def test_tied_scores_give_the_false_positive_rate_and_are_reported():
    member = np.arange(4000) < 2000
    assert statistics.tpr_at(np.zeros(4000), member, 0.01) == pytest.approx(0.01)
    found = statistics.tpr_interval(np.zeros(4000), member, 0.01, np.random.default_rng(0))
    assert "2000 non-members tie" in found.note
    # two levels: what a label-only attack answers
    answers = np.where(member, np.arange(4000) % 2 == 0, np.arange(4000) % 4 == 0).astype(float)
    assert statistics.tpr_at(answers, member, 0.01) == pytest.approx(0.5 * 0.01 / 0.25)


def test_few_non_members_make_low_rates_unreliable():
    scores, member, rng = gaussian(0, 1)
    assert not statistics.tpr_interval(scores, member, 0.01, rng).reliable
    assert statistics.tpr_interval(scores, member, 0.05, rng).reliable


@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_intervals_hold_the_truth(mu):
    held = np.zeros(3, dtype=int)
    for seed in range(200):
        scores, member, rng = gaussian(seed, mu, 200)
        wide = statistics.tpr_interval(scores, member, 0.01, rng)
        fits = statistics.balanced_accuracy(scores, member, 0.5)
        low, high = statistics.percentiles(statistics.auc_draws(scores, member, 300, rng))
        held += [
            low <= stats.norm.cdf(mu / 2**0.5) <= high,
            wide.low <= stats.norm.sf(stats.norm.isf(0.01) - mu) <= wide.high,
            fits.low <= (stats.norm.sf(0.5 - mu) + stats.norm.cdf(0.5)) / 2 <= fits.high,
        ]
    assert held[0] >= BOOTSTRAP
    assert held[1] >= EXACT
    assert held[2] >= EXACT


def test_a_planted_signal_is_found():
    found = [statistics.auc_interval(*gaussian(seed, 1)) for seed in range(20)]
    assert all(interval.low > 0.5 for interval in found)
    # and the interval is no wider than it must be: sd of AUC is 0.0149 at mu = 1, 500 each
    widths = np.mean([interval.high - interval.low for interval in found])
    assert widths == pytest.approx(2 * 1.96 * 0.0149, rel=0.1)


@pytest.mark.parametrize("size", [8, 40])
def test_means_of_few_records(size):
    held = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(20, 4, size)
        found = statistics.mean_interval(values, np.random.default_rng([seed, 1]))
        held += found.low <= 20 <= found.high
    assert BOOTSTRAP <= held <= 199


def test_perfect_scores_do_not_pretend_to_certainty():
    member = np.arange(40) < 20
    found = statistics.auc_interval(member.astype(float), member, np.random.default_rng(0))
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.8 < found.low < 0.9


def test_next_to_perfect_is_no_surer_than_perfect():
    """One wrong pair of 400 once had a hundredth of the spread that none at all has."""
    member = np.arange(40) < 20
    scores = member + 1e-3 * np.arange(40.0)
    scores[0] = 0.0205  # above one non-member less than all others
    found = statistics.auc_interval(scores, member, np.random.default_rng(0))
    assert 1 - 20 / 400 < found.value < 1.0
    assert found.low < 0.9 and found.high == 1.0
    turned = statistics.auc_interval(-scores, member, np.random.default_rng(0))
    assert turned.high == pytest.approx(1 - found.low, abs=0.02)


def test_ends_are_where_chance_takes_an_area():
    for value, n, n_negative in ((0.98, 60, 60), (0.9, 20, 100), (1.0, 30, 30)):
        low, high = statistics.auc_ends(value, 0.99, 0.99, n, n_negative)
        least = min(low, 1.0)
        if value < 1:
            gone = 1.959964 * statistics.auc_spread(least, n, n_negative)
            assert value - least == pytest.approx(gone, rel=1e-6)
        assert least < value <= high
    assert statistics.auc_ends(0.8, 0.7, 0.9, 60, 60) == (0.7, 0.9)
    assert statistics.auc_spread(0.7602, 500, 500) == pytest.approx(0.0149, abs=5e-4)


def test_scores_that_are_all_equal_are_said_to_be():
    member = np.arange(40) < 20
    found = statistics.auc_interval(np.zeros(40), member, np.random.default_rng(0))
    assert found.value == 0.5 and "every record has one score" in found.note


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "n_negative", "mu"), [(12, 12, 2), (20, 100, 2), (20, 100, 3), (60, 60, 2), (60, 60, 3)]
)
def test_small_groups_that_leak_nearly_all_are_covered(n, n_negative, mu):
    """Devices, outliers, exposed records; the bootstrap alone covers 85 to 94 % of these."""
    truth, member, held = stats.norm.cdf(mu / 2**0.5), np.arange(n + n_negative) < n, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scores = np.concatenate([rng.normal(mu, 1, n), rng.normal(0, 1, n_negative)])
        found = statistics.auc_interval(scores, member, rng)
        held += found.low <= truth <= found.high
    assert held >= EXACT


def test_paired_differences_and_holm():
    rng = np.random.default_rng(0)
    one = rng.normal(0, 1, 100)
    near = statistics.paired_difference(one, one + rng.normal(0, 0.1, 100), rng)
    far = statistics.paired_difference(one + 0.1, one + rng.normal(0, 0.1, 100), rng)
    assert near.low < 0 < near.high and near.p > 0.01
    assert far.low > 0 and far.p < 0.001
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mu", [0.0, 1.0])
def test_coverage_over_two_thousand_draws(mu):
    held = np.zeros(4)
    for seed in range(2000):
        scores, member, rng = gaussian(seed, mu, 250)
        area = statistics.auc_interval(scores, member, rng)
        many = statistics.tpr_interval(scores, member, 0.05, rng)
        wide = statistics.tpr_interval(scores, member, 0.01, rng)
        fits = statistics.balanced_accuracy(scores, member, 0.5)
        held += [
            area.low <= stats.norm.cdf(mu / 2**0.5) <= area.high,
            many.low <= stats.norm.sf(stats.norm.isf(0.05) - mu) <= many.high,
            wide.low <= stats.norm.sf(stats.norm.isf(0.01) - mu) <= wide.high,
            fits.low <= (stats.norm.sf(0.5 - mu) + stats.norm.cdf(0.5)) / 2 <= fits.high,
        ]
    share = held / 2000
    assert 0.92 <= share[0] <= 0.98
    assert 0.92 <= share[1] <= 0.98
    assert share[2] >= 0.94
    assert share[3] >= 0.94
