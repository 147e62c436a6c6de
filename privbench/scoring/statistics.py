"""Estimates with 95 % intervals that cover what they say.

Intervals of means and of rates at a threshold that is estimated too: bootstrap percentiles, expanded
for small samples as in Hesterberg: What teachers should know about the bootstrap, 2015,
https://arxiv.org/abs/1411.5279.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import special, stats

from privbench.scoring.rates import Interval, clopper_pearson, opened

DRAWS = 1_000  # bootstrap resamples
CHUNK = 2_000_000  # numbers held at once while resampling
BAND_DRAWS = 200  # of a whole curve
EXPECTED = 10  # non-members above a threshold, for resampling to say where it lies
FEW = 8  # victims below which the interval of a mean is not trusted
EDGE = (
    5  # records' worth of misses (or hits) below which resamples of an area see too little spread
)


class Difference(NamedTuple):
    """A paired difference: estimate, 95 % interval, two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def numpy_rng(rng: torch.Generator) -> np.random.Generator:
    """A numpy generator that depends on the seed of ``rng`` alone."""
    return np.random.default_rng(rng.initial_seed())


def counts(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of ``n`` records occurs in each resample: ``(draws, n)``."""
    picked = rng.integers(0, n, size=(draws, n)) + np.arange(draws)[:, None] * n
    return np.bincount(picked.ravel(), minlength=draws * n).reshape(draws, n)


def percentiles(draws: np.ndarray, n: int | None = None) -> tuple[float, float]:
    """2.5 and 97.5 % points; further out for ``n`` records, as Student's t is wider than Gauss."""
    tail = 0.025
    if n is not None and n > 1:
        tail = special.ndtr(-np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, 0.975))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def mean_draws(values: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of resamples."""
    return _chunked(
        draws, len(values), lambda d: counts(len(values), d, rng) @ values / len(values)
    )


def mean_interval(values: np.ndarray, rng: np.random.Generator) -> Interval:
    """Bootstrap over records of a mean."""
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"), False)
    low, high = percentiles(mean_draws(values, DRAWS, rng), len(values))
    return Interval(float(values.mean()), low, high, len(values) >= FEW)


def auc(scores: np.ndarray, member: np.ndarray) -> float:
    """Chance that a member scores above a non-member; ties count one half (mid-ranks)."""
    positive, negative = scores[member], scores[~member]
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = stats.rankdata(np.concatenate([positive, negative]))[: len(positive)].sum()
    least = len(positive) * (len(positive) + 1) / 2
    return float((ranks - least) / (len(positive) * len(negative)))


def auc_draws(
    scores: np.ndarray, member: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """AUC of stratified resamples (members and non-members apart)."""
    positive, negative = scores[member], np.sort(scores[~member])
    below = np.searchsorted(negative, positive, "left")
    upto = np.searchsorted(negative, positive, "right")
    tied = bool((below != upto).any())

    def some(number: int) -> np.ndarray:
        inner = counts(len(negative), number, rng)
        under = np.zeros((number, len(negative) + 1), dtype=np.int32)
        np.cumsum(inner, axis=1, out=under[:, 1:])
        share = under.take(below, axis=1)
        share = share + under.take(upto, axis=1) if tied else 2 * share
        won = np.einsum("ij,ij->i", counts(len(positive), number, rng), share)
        return won / (2 * len(negative) * len(positive))

    return _chunked(draws, len(scores), some)


def auc_interval(scores: np.ndarray, member: np.ndarray, rng: np.random.Generator) -> Interval:
    """AUC with its stratified bootstrap interval; see ``opened`` for scores without overlap, and
    ``auc_ends`` for those that hardly overlap."""
    value = auc(scores, member)
    if not np.isfinite(value):
        return Interval(value, 0.0, 1.0, False)
    low, high = percentiles(auc_draws(scores, member, DRAWS, rng))
    members = int(member.sum())
    low, high = auc_ends(value, low, high, members, len(member) - members)
    note = "every record has one score, which tells nobody apart" if np.ptp(scores) == 0 else ""
    return Interval(value, low, high, min(members, len(member) - members) >= FEW, note)


def auc_ends(value: float, low: float, high: float, n: int, n_negative: int) -> tuple[float, float]:
    """The ends of an area's interval, further out where the area is next to 0 or 1.

    There resamples are skewed the wrong way, and of 60 records a side at an area of 0.98 the bootstrap's
    interval held the truth in 88 of 100 trials. Then it is joined with the score interval of R. G.
    Newcombe: Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2,
    2006, https://doi.org/10.1002/sim.2324 (method 5).
    """
    low, high = opened(low, high, min(n, n_negative))
    if min(n, n_negative) * min(value, 1 - value) >= EDGE:
        return low, high
    return min(low, _least(value, n, n_negative)), max(high, 1 - _least(1 - value, n, n_negative))


def auc_spread(area: float, n: int, n_negative: int) -> float:
    """Standard error of an area under the curve.

    J. A. Hanley, B. J. McNeil: The Meaning and Use of the Area under a Receiver Operating Characteristic
    (ROC) Curve, 1982, https://doi.org/10.1148/radiology.143.1.7063747, with the mean of both numbers in the
    place of each, as Newcombe does.
    """
    one, other = area / (2 - area), 2 * area**2 / (1 + area)
    pairs = (n + n_negative) / 2 - 1
    variance = area * (1 - area) + pairs * (one + other - 2 * area**2)
    return math.sqrt(max(variance, 0.0) / (n * n_negative))


def _least(value: float, n: int, n_negative: int) -> float:
    """The least area from which what was seen is not further away than chance takes it."""
    out, within, reach = 0.0, value, float(special.ndtri(0.975))
    for _ in range(50):
        middle = (out + within) / 2
        if value - middle > reach * auc_spread(middle, n, n_negative):
            out = middle
        else:
            within = middle
    return within


def tpr_at(scores: np.ndarray, member: np.ndarray, fpr: float) -> float:
    """Largest share of members that a threshold lets pass with ``fpr`` of the non-members at most;
    records that tie at the threshold pass at random."""
    ones = np.ones((1, 1), dtype=np.int64)
    positive, negative = scores[member], scores[~member]
    if not len(positive) or not len(negative):
        return float("nan")
    inner, outer = ones.repeat(len(negative), 1), ones.repeat(len(positive), 1)
    return float(_tpr(np.sort(positive)[::-1], np.sort(negative)[::-1], outer, inner, fpr)[0])


def tpr_interval(
    scores: np.ndarray, member: np.ndarray, fpr: float, rng: np.random.Generator
) -> Interval:
    """True positive rate at a fixed false positive rate.

    With at least 10 non-members above the threshold: stratified bootstrap that estimates the threshold
    anew each time. With fewer: order statistics bound the threshold, Clopper and Pearson the rate at
    those bounds (97.5 % each), and the result is marked unreliable.
    """
    value = tpr_at(scores, member, fpr)
    positive, negative = np.sort(scores[member])[::-1], np.sort(scores[~member])[::-1]
    if not np.isfinite(value):
        return Interval(value, 0.0, 1.0, False)
    tied = _tied(negative, fpr)
    note = f"{tied} non-members tie at the threshold, broken at random" if tied > 1 else ""
    if len(negative) * fpr < EXPECTED:
        low, high = _order_band(positive, negative, fpr)
        return Interval(value, low, high, False, note)

    def some(number: int) -> np.ndarray:
        inner = counts(len(negative), number, rng)
        return _tpr(positive, negative, counts(len(positive), number, rng), inner, fpr)

    low, high = percentiles(_chunked(DRAWS, len(scores), some))
    if low == high:
        exact = clopper_pearson(round(value * len(positive)), len(positive))
        low, high = exact.low, exact.high
    return Interval(value, low, high, True, note)


def tpr_band(
    scores: np.ndarray, member: np.ndarray, rates: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """True positive rate at many false positive rates: value, low and high, ``(rates, 3)``.

    Intervals hold at each rate by itself, made as ``tpr_interval`` does, from one set of resamples.
    """
    positive, negative = np.sort(scores[member])[::-1], np.sort(scores[~member])[::-1]
    inner = counts(len(negative), BAND_DRAWS, rng)
    outer = counts(len(positive), BAND_DRAWS, rng)
    found = []
    for rate in rates.tolist():
        if rate >= 1:  # every record passes
            found.append((1.0, 1.0, 1.0))
            continue
        value = tpr_at(scores, member, rate)
        if len(negative) * rate < EXPECTED:
            low, high = _order_band(positive, negative, rate)
        else:
            low, high = percentiles(_tpr(positive, negative, outer, inner, rate))
        found.append((value, min(low, value), max(high, value)))
    return np.array(found)


def balanced_accuracy(scores: np.ndarray, member: np.ndarray, threshold: float) -> Interval:
    """Mean of true positive and true negative rate at a threshold fixed beforehand.

    The two exact intervals are joined by the square-and-add rule of Zou and Donner: Construction of
    confidence limits about effect measures, 2008, https://doi.org/10.1002/sim.3095.
    """
    said = scores > threshold
    right = clopper_pearson(int(said[member].sum()), int(member.sum()))
    left = clopper_pearson(int((~said[~member]).sum()), int((~member).sum()))
    value = (right.value + left.value) / 2
    down = np.hypot(right.value - right.low, left.value - left.low) / 2
    up = np.hypot(right.high - right.value, left.high - left.value) / 2
    return Interval(value, float(value - down), float(value + up), bool(np.isfinite(value)))


def paired_difference(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Difference:
    """Mean of ``one - other``, values of the same records: bootstrap interval, and the p-value of a
    test that flips signs at random (exact under symmetry)."""
    gaps = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    interval = mean_interval(gaps, rng)
    signs = rng.choice([-1.0, 1.0], size=(DRAWS * 10, len(gaps)))
    extreme = np.abs(signs @ gaps / len(gaps)) >= abs(interval.value) - 1e-12
    return Difference(*interval[:3], float((extreme.sum() + 1) / (len(extreme) + 1)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values adjusted for a family of tests (Holm 1979, https://www.jstor.org/stable/4615733)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    adjusted = np.empty_like(p)
    adjusted[order] = steps
    return tuple(adjusted.tolist())


def _tpr(
    positive: np.ndarray, negative: np.ndarray, outer: np.ndarray, inner: np.ndarray, fpr: float
) -> np.ndarray:
    """TPR of resamples given by counts; both scores and the columns of counts are descending."""
    values, first = np.unique(-negative, return_index=True)  # ascending of the negated: descending
    last = np.append(first[1:], len(negative)) - 1
    passed = np.cumsum(inner, axis=1)[:, last]  # non-members at or above each distinct value
    wanted = fpr * inner.sum(axis=1, keepdims=True)
    at = (passed <= wanted + 1e-9).sum(axis=1)
    row = np.arange(len(inner))
    above = np.where(at > 0, passed[row, np.maximum(at - 1, 0)], 0)
    weight = (wanted[:, 0] - above) / (passed[row, at] - above)
    hits = np.zeros((len(outer), len(positive) + 1))
    np.cumsum(outer, axis=1, out=hits[:, 1:])
    over = np.searchsorted(-positive, values, "left")[at]
    level = np.searchsorted(-positive, values, "right")[at]
    found = hits[row, over] + weight * (hits[row, level] - hits[row, over])
    return found / outer.sum(axis=1)


def _tied(negative: np.ndarray, fpr: float) -> int:
    """Non-members that hold exactly the threshold's score."""
    at = min(int(fpr * len(negative) + 1e-9), len(negative) - 1)
    return int((negative == negative[at]).sum())


def _order_band(positive: np.ndarray, negative: np.ndarray, fpr: float) -> tuple[float, float]:
    """Joint 95 % band of TPR when the threshold rests on few non-members (descending scores)."""
    n, tail = len(negative), 0.0125
    least = int(stats.binom.ppf(tail, n, fpr))
    most = int(stats.binom.ppf(1 - tail, n, fpr))
    strict = negative[least - 1] if least > 0 else np.inf
    loose = negative[most] if most < n else -np.inf
    low = clopper_pearson(int((positive > strict).sum()), len(positive), 0.975).low
    high = clopper_pearson(int((positive >= loose).sum()), len(positive), 0.975).high
    return low, high


def _chunked(draws: int, width: int, some: Callable[[int], np.ndarray]) -> np.ndarray:
    """``some(number)`` in pieces that keep memory bounded, put together."""
    step = max(1, min(draws, CHUNK // max(width, 1)))
    sizes = [step] * (draws // step) + ([draws % step] if draws % step else [])
    return np.concatenate([some(size) for size in sizes])
