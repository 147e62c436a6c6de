"""Lower bounds on epsilon: the literature's numbers, coverage, and power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, norm

from privbench.errors import PluginError
from privbench.scoring import bounds


@pytest.mark.parametrize(
    ("correct", "guesses", "epsilon"),
    [(86, 132, 0.3122), (100, 100, 3.4930), (900, 1000, 2.0212), (50, 100, 0.0)],
)
def test_one_run_gives_the_published_numbers(correct: int, guesses: int, epsilon: float) -> None:
    assert bounds.one_run(correct, guesses, guesses) == pytest.approx(epsilon, abs=5e-5)


def test_delta_and_abstentions_weaken_a_bound() -> None:
    sure = bounds.one_run(90, 100, 1000)
    assert bounds.one_run(90, 100, 1000, delta=1e-5) < sure
    assert bounds.one_run(90, 100, 1000, delta=1e-3) < bounds.one_run(90, 100, 1000, delta=1e-5)
    assert bounds.one_run(90, 100, 100) == sure  # without delta only the guesses count


def test_delta_is_counted_as_the_slow_sum_says() -> None:
    correct, guesses, canaries, epsilon, delta = 70, 90, 120, 0.4, 1e-4
    right = np.exp(epsilon) / (1 + np.exp(epsilon))
    worst, close = 0.0, 0.0
    for i in range(1, correct + 1):
        close += binom.pmf(correct - i, guesses, right)
        worst = max(worst, close / i)
    expected = binom.sf(correct - 1, guesses, right) + 2 * canaries * delta * worst
    found = bounds._chance_of(correct, guesses, canaries, epsilon, delta)
    assert found == pytest.approx(expected, rel=1e-12)


def test_epsilon_and_mu_of_the_gaussian_mechanism_are_inverse() -> None:
    for mu in (0.1, 0.5, 1.0, 4.0):
        epsilon = bounds.epsilon_of(mu, 1e-5)
        assert bounds.delta_of(mu, epsilon) == pytest.approx(1e-5, rel=1e-6)
        assert bounds.mu_of(epsilon, 1e-5) == pytest.approx(mu, rel=1e-6)
    assert bounds.epsilon_of(1.0, 1e-5) == pytest.approx(4.3766, abs=1e-3)
    assert bounds.epsilon_of(0.0, 1e-5) == 0.0


def _guesses(mu: float, canaries: int, made: int, rng: np.random.Generator) -> int:
    """Right guesses of the best auditor of a Gaussian mechanism who guesses at the extremes."""
    bits = rng.random(canaries) < 0.5
    scores = rng.normal(mu * bits, 1.0) - mu / 2
    order = np.abs(scores).argsort()[::-1][:made]
    return int(((scores[order] > 0) == bits[order]).sum())


@pytest.mark.parametrize("made", [100, 400])
def test_one_run_bounds_stay_below_the_truth(made: int) -> None:
    """A one-sided exact binomial test at 0.001 of coverage 95 % over 200 draws: 179 must hold."""
    rng, delta, mu = np.random.default_rng(0), 1e-5, 1.0
    claim = bounds.epsilon_of(mu, delta)
    right = [_guesses(mu, 400, made, rng) for _ in range(200)]
    plain = {c: bounds.one_run(c, made, 400, delta) for c in set(right)}
    curve = {c: bounds.one_run_gaussian(c, made, 400, delta) for c in set(right)}
    assert sum(plain[c] <= claim for c in right) >= 179
    assert sum(curve[c] <= claim for c in right) >= 179
    if made == 100:
        assert np.mean([curve[c] for c in right]) > np.mean([plain[c] for c in right])


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_the_worst_private_mechanism_is_accused_in_one_of_twenty_at_most(epsilon: float) -> None:
    """Randomised response tells all that epsilon allows; every outcome is weighed by its chance."""
    right = 1 / (1 + np.exp(-epsilon))
    for guesses in (60, 250):
        chances = binom.pmf(np.arange(guesses + 1), guesses, right)
        least = next(c for c in range(guesses + 2) if _accuses(c, guesses, epsilon))
        assert chances[least:].sum() <= 0.05
    n, false = 30, 0.0
    told, untold = (binom.pmf(np.arange(n + 1), n, rate) for rate in (right, 1 - right))
    for hits, alarms in np.argwhere(np.outer(told, untold) > 1e-7).tolist():
        if bounds.two_rates(hits, n, alarms, n) > epsilon:
            false += told[hits] * untold[alarms]
    assert false <= 0.05


def _accuses(correct: int, guesses: int, epsilon: float) -> bool:
    """True beyond the last count, so that a search ends."""
    if correct > guesses:
        return True
    return bounds.one_run(correct, guesses, 2 * guesses) > epsilon + 1e-9


def test_bounds_are_quiet_without_information() -> None:
    rng = np.random.default_rng(1)
    right = [int(rng.binomial(300, 0.5)) for _ in range(200)]
    assert sum(bounds.one_run(c, 300, 300) > 0 for c in right) <= 21
    assert sum(bounds.one_run_gaussian(c, 300, 300, 1e-5) > 0 for c in right) <= 21
    rates = [(int(rng.binomial(200, 0.3)), int(rng.binomial(200, 0.3))) for _ in range(200)]
    assert sum(bounds.two_rates(t, 200, f, 200) > 0 for t, f in rates) <= 21
    assert sum(bounds.two_rates_gaussian(t, 200, f, 200) > 0 for t, f in rates) <= 21


def test_the_gaussian_bound_sees_that_noise_was_halved_and_accuses_nobody_else() -> None:
    rng, n = np.random.default_rng(2), 500
    found = {}
    for mu in (1.0, 2.0):  # as claimed, and with half the noise
        mus = []
        for _ in range(100):
            hits = int((rng.normal(mu, 1, n) > mu / 2).sum())
            false = int((rng.normal(0, 1, n) > mu / 2).sum())
            mus.append(bounds.two_rates_gaussian(hits, n, false, n))
        found[mu] = np.array(mus)
    assert (found[1.0] <= 1.0).mean() >= 0.95
    assert (found[2.0] > 1.0).mean() >= 0.99
    assert (found[2.0] <= 2.0).mean() >= 0.95


def test_two_rates_are_the_textbook_ratio() -> None:
    """Without sampling error, at a threshold of a Gaussian mechanism, the ratio is the likelihood's."""
    n = 10**7
    hits, false = round(n * norm.sf(0.5 - 1)), round(n * norm.sf(0.5))
    found = bounds.two_rates(hits, n, false, n)
    assert found == pytest.approx(np.log(norm.sf(-0.5) / norm.sf(0.5)), abs=5e-3)


def test_a_threshold_is_judged_on_observations_that_did_not_choose_it() -> None:
    rng = np.random.default_rng(3)
    bits = np.arange(2000) % 2 == 1
    scores = rng.normal(2 * bits, 1.0)
    threshold, rest = bounds.chosen_threshold(scores, bits, rng)
    assert 0.0 < threshold < 2.0
    assert len(rest) == 1000
    assert len(np.unique(rest)) == 1000


@pytest.mark.parametrize("counts", [(5, 4, 10), (-1, 4, 10), (4, 11, 10), (0, 0, 0)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(PluginError, match="correct <= guesses <= canaries"):
        bounds.one_run(*counts)


def test_a_bound_needs_both_sides() -> None:
    with pytest.raises(PluginError, match="left-out canaries"):
        bounds.two_rates(3, 5, 0, 0)
