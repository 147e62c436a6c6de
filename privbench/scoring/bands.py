"""A band around a curve that holds all of it at once, where points share their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from privbench.scoring import statistics
from privbench.scoring.score import RATES, Measured

DRAWS = 1_000  # bootstrap resamples
LEVEL = 0.95
NORMAL = 1.96  # of one point alone; a band is never narrower


class Point(NamedTuple):
    """One point of a curve and the band there."""

    value: float
    low: float
    high: float


def band(points: Sequence[Sequence[Measured]], rng: np.random.Generator) -> tuple[Point, ...]:
    """A 95 % band around means over records, for all points together (max-|t|).

    Resamples draw records once for all points, which hold the same ones as far as they hold them, and
    for each point the repetitions it is the mean of. The band is so many standard errors wide that 95 %
    of the resampled curves lie within it at every point: J. L. Montiel Olea, M. Plagborg-Moller:
    Simultaneous confidence bands, 2019, https://doi.org/10.1002/jae.2656. Around rates it is that of two
    more hits and two more misses: A. Agresti, B. A. Coull: Approximate is better than "exact" for interval
    estimation of binomial proportions, 1998, https://doi.org/10.1080/00031305.1998.10480550.

    Args:
        points: for each the values of one metric, one value a record; several where a point is a mean
            over repetitions (drawn coalitions).

    Returns:
        for each point its mean over repetitions, and the band.
    """
    records = np.unique(np.concatenate([m.records for point in points for m in point]))
    times = statistics.counts(len(records), DRAWS, rng)
    values, drawn, middles, errors = [], [], [], []
    for point in points:
        resampled = np.stack([_means(m, records, times) for m in point], axis=1)
        picked = rng.integers(0, len(point), size=(DRAWS, len(point)))
        found = np.take_along_axis(resampled, picked, axis=1).mean(axis=1)
        value = float(np.mean([m.values.mean() for m in point]))
        middle, least = _rate(point) if point[0].metric in RATES else (value, 0.0)
        spread = float(found.std(ddof=1))
        values.append(value)
        drawn.append((found - value) / max(spread, 1e-300))
        middles.append(middle)
        errors.append(max(spread, least))
    width = max(NORMAL, float(np.quantile(np.abs(drawn).max(axis=0), LEVEL)))
    few = min(len(m.records) for point in points for m in point)
    width *= float(stats.t.ppf(0.975, max(few - 1, 1))) / NORMAL
    low, high = (np.array(middles) + sign * width * np.array(errors) for sign in (-1, 1))
    if points[0][0].metric in RATES:
        low, high = np.maximum(low, 0.0), np.minimum(high, 1.0)
    low, high = np.minimum(low, values), np.maximum(high, values)
    return tuple(Point(*map(float, each)) for each in zip(values, low, high, strict=True))


def _means(measured: Measured, records: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Means of resamples of all records over those that a point holds."""
    mine = times[:, np.searchsorted(records, measured.records)]
    count = mine.sum(axis=1)
    return np.where(
        count > 0, mine @ measured.values / np.maximum(count, 1), measured.values.mean()
    )


def _rate(point: Sequence[Measured]) -> tuple[float, float]:
    """Middle and least standard error of the band around a rate: two hits and two misses more."""
    hits = float(np.mean([m.values.sum() for m in point])) + 2
    count = float(np.mean([len(m.records) for m in point])) + 4
    rate = hits / count
    return rate, float(np.sqrt(rate * (1 - rate) / count))
