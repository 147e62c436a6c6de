"""Lower bounds on epsilon from what an auditor guessed, each holding with probability ``level``.

A bound says: no mechanism that is (epsilon, delta)-private with a smaller epsilon would have let these
guesses be right so often, save with probability 1 - ``level``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import binom

from privbench.errors import PluginError
from privbench.scoring.rates import clopper_pearson

LEVEL = 0.95
MOST = 60.0  # epsilon at which a search ends: e^60 is beyond any count of canaries
MOST_MU = 40.0  # the same for the parameter of Gaussian differential privacy


def one_run(
    correct: int, guesses: int, canaries: int, delta: float = 0.0, level: float = LEVEL
) -> float:
    """From guesses at many canaries in one training run.

    T. Steinke, M. Nasr, M. Jagielski: Privacy Auditing with One (1) Training Run, 2023,
    https://arxiv.org/abs/2305.08846 (theorem 5.2).

    Args:
        correct: of ``guesses`` made; for the others of ``canaries`` the auditor abstained. Each canary
            was in the training set by a fair coin of its own, and how many guesses are made was
            fixed before the coins were looked at.

    Returns:
        epsilon, 0 where the guesses do not show any.

    Example::

        one_run(86, 132, 132)  # 0.3122
    """
    _check_counts(correct, guesses, canaries)

    def chance(epsilon: float) -> float:
        return _chance_of(correct, guesses, canaries, epsilon, delta)

    return _largest_refuted(chance, 1 - level, MOST)


def _chance_of(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Most that a private mechanism's chance of ``correct`` right guesses or more can be."""
    right = 1 / (1 + math.exp(-epsilon))
    beyond = float(binom.sf(correct - 1, guesses, right))
    if not delta or not correct:
        return beyond
    fewer = np.arange(1, correct + 1)
    close = np.cumsum(binom.pmf(correct - fewer, guesses, right))
    return min(1.0, beyond + 2 * canaries * delta * float((close / fewer).max()))


def one_run_gaussian(
    correct: int, guesses: int, canaries: int, delta: float, level: float = LEVEL
) -> float:
    """The same guesses held against a whole trade-off curve, that of the Gaussian mechanism.

    S. Mahloujifar, L. Melis, K. Chaudhuri: Auditing f-Differential Privacy in One Run, 2024,
    https://arxiv.org/abs/2410.22235. It holds for mechanisms whose curve is Gaussian, DP-SGD's in the
    limit of many steps; a larger mu than the refuted one is not excluded by it.

    Args:
        correct, guesses, canaries: as in ``one_run``.
    """
    _check_counts(correct, guesses, canaries)
    if not correct:
        return 0.0
    weight = (1 - level) * guesses / canaries
    alpha, beta = weight * correct / guesses, weight * (guesses - correct) / guesses

    def excess(mu: float) -> float:
        inside, outside = alpha, beta
        for i in range(correct - 1, -1, -1):
            wider = max(outside, float(ndtr(ndtri(min(inside, 1.0)) - mu)))
            inside += i / (guesses - i) * (wider - outside)
            outside = wider
        return inside + outside - guesses / canaries

    if excess(0.0) <= 0:
        return 0.0
    mu = MOST_MU if excess(MOST_MU) > 0 else float(brentq(excess, 0.0, MOST_MU, xtol=1e-6))
    return epsilon_of(mu, delta)


def two_rates(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float = 0.0,
    level: float = LEVEL,
) -> float:
    """From true and false positive rates at one threshold that was fixed beforehand.

    M. Jagielski, J. Ullman, A. Oprea: Auditing Differentially Private Machine Learning: How Private is
    Private SGD?, 2020, https://arxiv.org/abs/2006.07709. Both sides of the test are used, each with
    half of what may go wrong, so independent observations are needed: one canary a training, or
    canaries that do not meet.
    """
    fnr, fpr = _upper_rates(true_positives, positives, false_positives, negatives, level)
    sides = [(1 - delta - one) / other for one, other in ((fnr, fpr), (fpr, fnr)) if other > 0]
    return max([0.0, *(math.log(side) for side in sides if side > 1)])


def two_rates_gaussian(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    level: float = LEVEL,
) -> float:
    """The least mu of Gaussian differential privacy that allows these rates.

    M. Nasr, J. Hayes, T. Steinke, B. Balle, F. Tramèr, M. Jagielski, N. Carlini, A. Terzis: Tight
    Auditing of Differentially Private Machine Learning, 2023, https://arxiv.org/abs/2302.07956.

    Returns:
        mu, 0 where the rates do not show any; ``epsilon_of`` makes an epsilon of it.
    """
    fnr, fpr = _upper_rates(true_positives, positives, false_positives, negatives, level)
    if fnr + fpr >= 1:
        return 0.0
    return float(-ndtri(fpr) - ndtri(fnr))


def chosen_threshold(
    scores: Float[np.ndarray, " n"], inserted: Bool[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    """A threshold chosen on one random half of the observations, and the other half to judge it on.

    A threshold chosen on what it is judged by needs a correction; a split needs none.

    Args:
        scores: higher = more likely inserted.
        inserted: whether each was.

    Returns:
        the threshold with the best Gaussian bound on the first half, and the places of the second.
    """
    order = rng.permutation(len(scores))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    bits = inserted[first]
    places = np.unique(scores[first])
    places = places[:: max(1, len(places) // 200)]
    if not len(places):
        return 0.0, second
    positives, negatives = int(bits.sum()), int((~bits).sum())

    def bound(place: float) -> float:
        above = scores[first] >= place
        counts = int((above & bits).sum()), positives, int((above & ~bits).sum()), negatives
        return two_rates_gaussian(*counts)

    return float(max(places, key=bound)), second


def delta_of(mu: float, epsilon: float) -> float:
    """Delta of the Gaussian mechanism.

    J. Dong, A. Roth, W. J. Su: Gaussian Differential Privacy, 2022, https://arxiv.org/abs/1905.02383
    (corollary 2.13).
    """
    if mu <= 0:
        return 0.0
    near, far = -epsilon / mu + mu / 2, -epsilon / mu - mu / 2
    return float(ndtr(near) - math.exp(epsilon + log_ndtr(far)))


def epsilon_of(mu: float, delta: float) -> float:
    """Epsilon of the Gaussian mechanism with parameter ``mu`` at this delta; 0 where it needs none."""
    if mu <= 0 or delta_of(mu, 0.0) <= delta:
        return 0.0
    most = mu * (mu / 2 + max(1.0, float(-ndtri(max(delta, 1e-300)))))
    return float(brentq(lambda e: delta_of(mu, e) - delta, 0.0, most, xtol=1e-9))


def mu_of(epsilon: float, delta: float) -> float:
    """The mu whose Gaussian mechanism has just this epsilon at this delta."""
    return float(brentq(lambda mu: epsilon_of(mu, delta) - epsilon, 1e-6, MOST_MU, xtol=1e-9))


def _upper_rates(
    true_positives: int, positives: int, false_positives: int, negatives: int, level: float
) -> tuple[float, float]:
    """Most that the false negative and the false positive rate may be, jointly at ``level``."""
    if min(positives, negatives) < 1:
        raise PluginError(
            f"a bound needs inserted and left-out canaries; got {positives} and {negatives}"
        )
    # each side one-sided at half of what may go wrong: a two-sided interval at ``level``
    fnr = clopper_pearson(positives - true_positives, positives, level).high
    return fnr, clopper_pearson(false_positives, negatives, level).high


def _largest_refuted(chance: Callable[[float], float], least: float, most: float) -> float:
    """The largest epsilon under which what was seen had at most the chance ``least``."""
    if chance(0.0) > least:
        return 0.0
    if chance(most) <= least:
        return most
    return float(brentq(lambda epsilon: chance(epsilon) - least, 0.0, most, xtol=1e-9))


def _check_counts(correct: int, guesses: int, canaries: int) -> None:
    if not 0 <= correct <= guesses <= canaries or not canaries:
        raise PluginError(
            "expected 0 <= correct <= guesses <= canaries and a canary at least; got "
            f"correct={correct}, guesses={guesses}, canaries={canaries}"
        )
