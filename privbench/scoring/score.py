"""What a measurement says: a value, its interval, and what guessing blind would give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LOWER_LEAKS = frozenset({"mse", "perceptual"})
"""Metrics of which a small value means leakage; of all others a large one does."""

PSNR_RATE, SSIM_RATE = "psnr_20db_rate", "ssim_0.6_rate"
"""Share of images rebuilt at least so well; the threshold is in the name."""

RATES = frozenset({"identification", "evaluator_top1", "label_accuracy", PSNR_RATE, SSIM_RATE})
"""Metrics that are shares of hits, each hit 0 or 1."""


POWERFUL = 0.8
"""Power from which on an audit that finds nothing says something."""


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
        claim, power: of an audit the epsilon that is claimed, and the chance that such a bound would
            have exceeded it, had the noise been half; None = there is none.

    An audit's interval has one side: ``value`` and ``low`` are the bound, ``high`` is infinite.
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
    claim: float | None = None
    power: float | None = None

    def verdict(self) -> str:
        """``by construction``, ``too few``, ``leaks`` or ``not shown to leak``.

        Of an audit ``claim broken``, ``consistent``, ``too weak to tell`` or, where there is nothing to
        be held against, ``no claim``.
        """
        if self.goal == "audit":
            return self._audited()
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

    def _audited(self) -> str:
        if self.claim is None:
            return "no claim"
        if self.reliable and self.low > self.claim:
            return "claim broken"
        strong = self.reliable and (self.power or 0.0) >= POWERFUL
        return "consistent" if strong else "too weak to tell"

    def against_blind(self) -> str:
        """The same in words that no number contradicts: is this better than guessing?

        ``better than guessing``, ``not shown to beat guessing`` (the interval reaches the blind value),
        ``worse than guessing`` (it lies wholly beyond it); empty where a number is missing.
        """
        ends = (self.low, self.blind) if self.goal == "audit" else (self.low, self.high, self.blind)
        if not all(math.isfinite(number) for number in ends):
            return ""
        low, high, blind = self.low, self.high, self.blind
        if self.metric in LOWER_LEAKS:
            low, high, blind = -high, -low, -blind
        if low > blind:
            return "better than guessing"
        return "worse than guessing" if high < blind else "not shown to beat guessing"


@dataclass(frozen=True, eq=False)
class Measured:
    """What one metric of one seat is made of, record by record, so that seats can be compared.

    Args:
        metric: its name.
        records: which record each value belongs to, ``(n,)``; equal numbers, equal records.
        values: one value a record; scores, where ``member`` is given.
        member: membership bits; None = the metric is the mean of ``values``.
        threshold: of balanced accuracy.
        fpr: of a true positive rate, the false positive rate at which it is taken.
    """

    metric: str
    records: np.ndarray
    values: np.ndarray
    member: np.ndarray | None = None
    threshold: float | None = None
    fpr: float | None = None


@dataclass(frozen=True)
class Roc:
    """True against false positive rate of one seat's membership scores.

    Args:
        seat: its name.
        fpr: rising, from one non-member in all to 1.
        tpr, low, high: rate at each, and its 95 % band (point by point).
        reliable_from: least ``fpr`` at which the threshold rests on ten non-members or more.
    """

    seat: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    reliable_from: float


@dataclass(frozen=True, eq=False)
class Pictures:
    """Some images beside what a seat made of them. Private, where the goal is reconstruction.

    Args:
        seat: its name.
        true: the images that were to be found, ``(k, channels, height, width)``, bytes. Of model
            inversion, the mean image of each class.
        guess: what the attack gave; ``blind``: the best guess without the view.
    """

    seat: str
    true: np.ndarray
    guess: np.ndarray
    blind: np.ndarray


@dataclass(frozen=True, eq=False)
class SeatResult:
    """Everything measured about one seat's guess.

    Args:
        seat: its name.
        scores: headline first.
        measured: the records behind those scores that can be summed up over seats.
        references: scores of methods that use the truth, under ``method``.
        pictures: some of the images, where records are images.
    """

    seat: str
    scores: tuple[Score, ...]
    measured: tuple[Measured, ...] = ()
    references: tuple[Score, ...] = ()
    pictures: Pictures | None = None
