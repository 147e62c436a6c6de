"""What could have been shown: by an audit, its chance of exceeding the claim, had the noise been half.

Its canaries are ideal in it: each one's score is normal with standard deviation 1, and shifted where it was
inserted by twice the mu that the claim comes to as one Gaussian mechanism.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri

from privbench.scoring import bounds, statistics

TRIALS = 400
LARGEST = 300.0  # epsilon beyond which no number of canaries shows anything


def of_canaries(
    estimator: str,
    canaries: int,
    guesses: int,
    epsilon: float,
    delta: float,
    rng: np.random.Generator,
) -> float | None:
    """Power of one estimator of ``score_canaries``; None where nothing is claimed.

    Args:
        estimator: ``one_run``, ``one_run_gaussian``, ``two_rates`` or ``gaussian``.
    """
    if not math.isfinite(epsilon):
        return None
    if epsilon > LARGEST:
        return 0.0
    mu = 2 * bounds.mu_of(epsilon, delta)
    if estimator.startswith("one_run"):
        bound = bounds.one_run if estimator == "one_run" else bounds.one_run_gaussian
        least = _least(lambda right: bound(right, guesses, canaries, delta) > epsilon, guesses)
        return float((_right(mu, canaries, guesses, rng) >= least).mean())
    positives = rng.binomial(canaries // 2, 0.5, TRIALS)
    negatives = canaries // 2 - positives
    true, false = rng.binomial(positives, ndtr(mu / 2)), rng.binomial(negatives, ndtr(-mu / 2))
    found = []
    for counts in zip(true, positives, false, negatives, strict=True):
        if not (counts[1] and counts[3]):
            found.append(0.0)
        elif estimator == "two_rates":
            found.append(bounds.two_rates(*counts, delta))
        else:
            found.append(bounds.two_rates_gaussian(*counts))
    return float((np.array(found) > (epsilon if estimator == "two_rates" else mu / 2)).mean())


def halved_noise(
    positives: int, negatives: int, noise: float, level: float, rng: np.random.Generator
) -> np.ndarray:
    """Bounds on a step's mu from so many observations, had its noise been half of ``noise``; rising."""
    right = float(ndtr(1 / noise))  # at half a clip, with a standard deviation of half the noise
    true, false = rng.binomial(positives, right, TRIALS), rng.binomial(negatives, 1 - right, TRIALS)
    rates = zip(true, false, strict=True)
    return np.sort([bounds.two_rates_gaussian(t, positives, f, negatives, level) for t, f in rates])


def share_above(rising: np.ndarray, bill: Callable[[float], float], epsilon: float) -> float:
    """Share of the numbers whose bill is above epsilon; a larger number has no smaller bill."""
    below, above = 0, len(rising)
    while below < above:
        middle = (below + above) // 2
        if bill(float(rising[middle])) > epsilon:
            above = middle
        else:
            below = middle + 1
    return 1 - below / len(rising)


def least_area(n: int, n_negative: int, power: float = 0.8) -> float:
    """The least area under the curve whose 95 % interval excludes one half in that share of trials.

    By the normal approximation.

    Args:
        n, n_negative: of either kind.
    """
    for area in np.arange(0.5, 1.0, 0.005):
        if area - 0.5 >= (ndtri(0.975) + ndtri(power)) * statistics.auc_spread(area, n, n_negative):
            return float(area)
    return 1.0


def _right(mu: float, canaries: int, guesses: int, rng: np.random.Generator) -> np.ndarray:
    """Right guesses of the best auditor, in each trial."""
    bits = rng.random((TRIALS, canaries)) < 0.5
    order = np.argsort(rng.normal(mu * bits, 1.0), axis=1)
    sorted_bits = np.take_along_axis(bits, order, axis=1)
    half = guesses // 2
    return np.asarray(sorted_bits[:, -half:].sum(1) + (~sorted_bits[:, :half]).sum(1))


def _least(shows: Callable[[int], bool], most: int) -> int:
    """The least number of right guesses that shows it; more than ``most`` where none does."""
    low, high = 0, most + 1
    while low < high:
        middle = (low + high) // 2
        if shows(middle):
            high = middle
        else:
            low = middle + 1
    return low
