"""Intervals of rates at a threshold that was fixed beforehand; light enough for a page to import.

Clopper and Pearson: The use of confidence or fiducial limits illustrated in the case of the binomial,
1934, https://doi.org/10.1093/biomet/26.4.404.
"""

from __future__ import annotations

from typing import NamedTuple

from scipy import special


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float
    reliable: bool = True
    note: str = ""


def clopper_pearson(hits: float, n: float, level: float = 0.95) -> Interval:
    """Exact interval of a rate: ``hits`` of ``n`` independent trials.

    Fractions: so many independent ones as the trials, which are bound to each other, are worth.
    """
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0, False)
    tail = (1 - level) / 2
    low = special.betaincinv(hits, n - hits + 1, tail) if hits else 0.0
    high = special.betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0
    return Interval(hits / n, float(low), float(high))


def opened(low: float, high: float, n: int) -> tuple[float, float]:
    """The interval of a share, where every resample gave 0 or every one gave 1.

    Resampling saw no spread, which is no proof that there is none: then the interval is that of as
    many misses (or hits) in a row as there are records, ``n``.
    """
    if low == high == 1.0:
        return clopper_pearson(n, n).low, high
    if low == high == 0.0:
        return low, clopper_pearson(0, n).high
    return low, high
