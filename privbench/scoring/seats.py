"""Many seats in one line each: the worst, the median, the best.

The largest of many estimates is too large: 50 hosts that all succeed with one victim in ten show a
maximum of 0.17 on 100 victims. So the worst seat is *selected* on one half of the records and *estimated*
on the other; halves are swapped and the two estimates averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from scipy import stats
from scipy.integrate import quad

from privbench.contract import child_rng
from privbench.scoring import rates, statistics
from privbench.scoring.rates import Interval
from privbench.scoring.score import LOWER_LEAKS, RATES, Measured, Score, SeatResult

__all__ = ["SeatResult", "halves", "selected", "summarise"]

DRAWS = 400  # resamples of each seat; there may be hundreds of seats
FEWEST = 4  # records below which halves say nothing


def summarise(results: Sequence[SeatResult], seed: int) -> tuple[Score, ...]:
    """The scores of every seat and, of several, those of the worst, the median and the best.

    Metrics at low false positive rates are left out of the summary: half of the non-members are too
    few for them.
    """
    scores = [score for result in results for score in result.scores]
    if len(results) < 2:
        return tuple(scores)
    rng = child_rng(torch.Generator().manual_seed(seed), "seats")
    for metric in [measured.metric for measured in results[0].measured]:
        pairs = [
            (measured, score)
            for result in results
            for measured in result.measured
            for score in result.scores
            if measured.metric == score.metric == metric and len(measured.records)
        ]
        if pairs:
            draw = statistics.numpy_rng(child_rng(rng, metric))
            scores += _summary([p[0] for p in pairs], [p[1] for p in pairs], draw)
    return tuple(scores)


def _summary(
    measured: list[Measured], scores: list[Score], rng: np.random.Generator
) -> list[Score]:
    half = halves(measured, rng)
    sign = -1 if measured[0].metric in LOWER_LEAKS else 1
    captures = [score.capture for score in scores if score.capture is not None]
    base = replace(
        scores[0],
        n=round(float(np.median([score.n for score in scores]))),
        n_negative=round(float(np.median([score.n_negative for score in scores]))),
        capture=float(np.median(captures)) if captures else None,
    )
    chosen = f"of {len(scores)} seats, selected on one half of the records, estimated on the other"
    found = []
    for name, direction in (("worst", sign), ("best", -sign)):
        interval, seats = selected(measured, half, direction, rng)
        found.append(_named(base, name, interval, [scores[i] for i in seats], chosen))
    middle = _named(base, "median", _median(measured, rng), scores, f"of {len(scores)} seats")
    return [found[0], middle, found[1]]


def _named(base: Score, name: str, interval: Interval, of: list[Score], note: str) -> Score:
    return replace(
        base,
        seat=name,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        reliable=interval.reliable,
        blind=float(np.mean([score.blind for score in of])),
        blind_name=of[0].blind_name,
        note="; ".join(part for part in (note, base.note.split(";")[0]) if part),
    )


def halves(measured: list[Measured], rng: np.random.Generator) -> np.ndarray:
    """For each record number: True = first half. Members and non-members are halved apart."""
    records = np.concatenate([m.records for m in measured])
    bits = np.concatenate([_bits(m) for m in measured])
    first = np.zeros(int(records.max()) + 1, dtype=bool)
    for bit in (True, False):
        mine = np.unique(records[bits == bit])
        first[rng.permutation(mine)[: len(mine) // 2]] = True
    return first


def _bits(measured: Measured) -> np.ndarray:
    if measured.member is None:
        return np.ones(len(measured.records), dtype=bool)
    return measured.member


def selected(
    measured: list[Measured], half: np.ndarray, direction: int, rng: np.random.Generator
) -> tuple[Interval, list[int]]:
    """Select on one half, estimate on the other, swap, average; and which seats were selected.

    Of what else there are many estimates of, classes for one, the same holds.

    The interval is that of the two selected seats' estimates, wider for their ``bond``: exact for shares of
    hits, the mean of both intervals' ends for a rate at a threshold, a bootstrap over records for the rest.
    """
    estimates, draws, ends, hits, seats, rests = [], [], [], 0.0, [], []
    for flip in (False, True):
        there = [_value(_part(m, half[m.records] ^ flip)) for m in measured]
        seat = int(np.argmax(np.nan_to_num(direction * np.array(there), nan=-np.inf)))
        rest = _part(measured[seat], ~(half[measured[seat].records] ^ flip))
        if not np.isfinite(there[seat]) or not np.isfinite(_value(rest)):
            return _raw(measured, direction)
        seats.append(seat)
        estimates.append(_value(rest))
        hits += float(rest.values.sum())
        rests.append(rest)
        if rest.fpr is not None and rest.member is not None:
            ends.append(statistics.tpr_interval(rest.values, rest.member, rest.fpr, rng))
        elif rest.metric not in RATES:
            draws.append(_draws(rest, rng))
    value, count = float(np.mean(estimates)), sum(len(rest.records) for rest in rests)
    shared = 1 + bond(len(measured))
    if measured[0].metric in RATES:
        exact = rates.clopper_pearson(hits / shared, count / shared)
        return Interval(value, exact.low, exact.high, count >= FEWEST), seats
    if ends:
        sure = all(end.reliable for end in ends)
        low, high = (float(np.mean([end[place] for end in ends])) for place in (1, 2))
        return Interval(value, low, high, sure), seats
    mean = np.mean(draws, axis=0)
    low, high = statistics.percentiles(value + math.sqrt(shared) * (mean - value), count)
    low, high = _opened(value, low, high, rests)
    return Interval(value, low, high, count >= statistics.FEW), seats


@cache
def bond(choices: int) -> float:
    """Correlation of the two estimates where each half chooses among so many equal ones.

    If both choose the same, it is because both halves happened to favour it. The square of the expected
    largest of so many standard normal numbers, over their number less one; choices that are not equal
    have less, so an interval made wider by it is wide enough.
    """
    if choices < 2:
        return 0.0

    def density(x: float) -> float:
        return float(x * choices * stats.norm.pdf(x) * stats.norm.cdf(x) ** (choices - 1))

    return float(quad(density, -10, 10)[0] ** 2 / (choices - 1))


def _raw(measured: list[Measured], direction: int) -> tuple[Interval, list[int]]:
    """With too few records to halve: the extreme itself, marked unreliable."""
    values = direction * np.array([_value(m) for m in measured])
    seat = int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
    value = _value(measured[seat])
    return Interval(value, value, value, False), [seat]


def _median(measured: list[Measured], rng: np.random.Generator) -> Interval:
    """Median over seats; a resample draws records once for all seats, which saw the same ones."""
    value = float(np.nanmedian([_value(m) for m in measured]))
    if measured[0].member is None:
        draws = _mean_draws(measured, rng)
    else:
        seed = int(rng.integers(2**62))
        draws = np.stack([_draws(m, np.random.default_rng(seed)) for m in measured], axis=1)
    low, high = statistics.percentiles(np.nanmedian(draws, axis=1), len(measured[0].records))
    low, high = _opened(value, low, high, [min(measured, key=_fewer)])
    few = min(len(m.records) for m in measured) < statistics.FEW
    return Interval(value, min(low, value), max(high, value), not few)


def _opened(value: float, low: float, high: float, parts: list[Measured]) -> tuple[float, float]:
    """The interval, not shut next to 0 or 1, of a metric that is a share; others as they are.

    Args:
        parts: what it rests on, each of records of its own.
    """
    if parts[0].member is None:
        if parts[0].metric not in RATES:
            return low, high
        return rates.opened(low, high, sum(len(part.records) for part in parts))
    n = sum(int(_bits(part).sum()) for part in parts)
    n_negative = sum(len(part.records) for part in parts) - n
    low, high = max(low, 0.0), min(high, 1.0)
    if parts[0].threshold is not None:
        return rates.opened(low, high, min(n, n_negative))
    return statistics.auc_ends(value, low, high, n, n_negative)


def _fewer(measured: Measured) -> int:
    """Members or non-members, whichever are fewer; where there are no such, records."""
    inside = int(_bits(measured).sum())
    return inside if measured.member is None else min(inside, len(measured.records) - inside)


def _mean_draws(measured: list[Measured], rng: np.random.Generator) -> np.ndarray:
    """Means of every seat over resamples of all records that any seat saw: ``(draws, seats)``."""
    records = np.unique(np.concatenate([m.records for m in measured]))
    values, known = np.zeros((2, len(records), len(measured)))
    for seat, m in enumerate(measured):
        at = np.searchsorted(records, m.records)
        values[at, seat], known[at, seat] = m.values, 1.0
    times = statistics.counts(len(records), DRAWS, rng)
    drawn = times @ known
    return np.divide(times @ values, drawn, out=np.full_like(drawn, np.nan), where=drawn > 0)


def _part(measured: Measured, chosen: np.ndarray) -> Measured:
    bits = None if measured.member is None else measured.member[chosen]
    return replace(
        measured, records=measured.records[chosen], values=measured.values[chosen], member=bits
    )


def _value(measured: Measured) -> float:
    if measured.member is None:
        return float(measured.values.mean()) if len(measured.values) else float("nan")
    if not measured.member.any() or measured.member.all():
        return float("nan")
    if measured.fpr is not None:
        return statistics.tpr_at(measured.values, measured.member, measured.fpr)
    if measured.threshold is None:
        return statistics.auc(measured.values, measured.member)
    right = (measured.values > measured.threshold) == measured.member
    return float((right[measured.member].mean() + right[~measured.member].mean()) / 2)


def _draws(measured: Measured, rng: np.random.Generator) -> np.ndarray:
    if measured.member is None:
        return statistics.mean_draws(measured.values, DRAWS, rng)
    if measured.threshold is None:
        return statistics.auc_draws(measured.values, measured.member, DRAWS, rng)
    right = ((measured.values > measured.threshold) == measured.member).astype(np.float64)
    sides = (right[measured.member], right[~measured.member])
    return np.mean([statistics.mean_draws(side, DRAWS, rng) for side in sides], axis=0)
