"""What a measurement says: a value, its interval, and what guessing blind would give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LOWER_LEAKS = frozenset({"mse"})
"""Metrics of which a small value means leakage; of all others a large one does."""

RATES = frozenset({"identification", "evaluator_top1"})
"""Metrics that are shares of hits, each hit 0 or 1."""


@dataclass(frozen=True)
class Score:
    """One number about one seat.

    Args:
        goal: what was guessed.
        metric: name, with its unit (``psnr_db``).
        seat: name of the seat, or ``worst``, ``median``, ``best``.
        value, low, high: estimate and 95 % interval.
        n: victims (members, where membership is guessed; classes, in inversion).
        n_negative: non-members, where membership is guessed.
        blind: value of the best guess that ignores the view; ``blind_name`` says which.
        reliable: False where the interval, or the number of records, cannot carry a verdict.
        by_construction: the attack reads what the protocol hands over.
        over: ``records`` (this model) or ``targets`` (this recipe).
        capture: share of the members (the seat's own left out) that it saw at all; None = no
            traffic.
        note: ties, medians, how many candidates: what a reader should know.
        method: name of a reference method; empty = the attack itself.
    """

    goal: str
    metric: str
    seat: str
    value: float
    low: float
    high: float
    n: int
    n_negative: int = 0
    blind: float = math.nan
    blind_name: str = ""
    reliable: bool = True
    by_construction: bool = False
    over: str = "records"
    capture: float | None = None
    note: str = ""
    method: str = ""

    def verdict(self) -> str:
        """``by construction``, ``too few``, ``leaks`` or ``not shown to leak``."""
        numbers = (self.value, self.low, self.high, self.blind)
        if not all(math.isfinite(number) for number in numbers):
            return "too few"
        if self.by_construction:
            return "by construction"
        if not self.reliable:
            return "too few"
        low = self.metric in LOWER_LEAKS
        beyond = self.high < self.blind if low else self.low > self.blind
        return "leaks" if beyond else "not shown to leak"


@dataclass(frozen=True, eq=False)
class Measured:
    """What one metric of one seat is made of, record by record, so that seats can be compared.

    Args:
        metric: its name.
        records: which record each value belongs to, ``(n,)``; equal numbers, equal records.
        values: one value a record; scores, where ``member`` is given.
        member: membership bits; None = the metric is the mean of ``values``.
        threshold: of balanced accuracy.
    """

    metric: str
    records: np.ndarray
    values: np.ndarray
    member: np.ndarray | None = None
    threshold: float | None = None


@dataclass(frozen=True, eq=False)
class SeatResult:
    """Everything measured about one seat's guess.

    Args:
        seat: its name.
        scores: headline first.
        measured: the records behind those scores that can be summed up over seats.
        references: scores of methods that use the truth, under ``method``.
    """

    seat: str
    scores: tuple[Score, ...]
    measured: tuple[Measured, ...] = ()
    references: tuple[Score, ...] = ()
