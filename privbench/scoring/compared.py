"""Scores of candidates beside their membership bits: the numbers that any group of them has."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from privbench.contract import child_rng
from privbench.scoring import statistics
from privbench.scoring.rates import Interval
from privbench.scoring.score import Score

BALANCED = "balanced_accuracy"


@dataclass(frozen=True, eq=False)
class Compared:
    """Some candidates.

    Args:
        seat: whose guess it is.
        records: their numbers among all candidates.
        scores: the guess, one a record.
        bits: who is a member.
        blind: scores of a classifier that knows inputs alone (NaN where it gave none).
        rng: of resamples.
        group: which records these are, in the name of every metric; empty = all.
        goal: what was guessed.
        among: all candidates, of which a group is a part.
    """

    seat: str
    records: np.ndarray
    scores: np.ndarray
    bits: np.ndarray
    blind: np.ndarray
    rng: torch.Generator
    group: str = ""
    goal: str = "membership"
    among: Compared | None = None

    def part(self, chosen: np.ndarray, group: str) -> Compared:
        """Those of these records, as a group of their own."""
        return replace(
            self,
            records=self.records[chosen],
            scores=self.scores[chosen],
            bits=self.bits[chosen],
            blind=self.blind[chosen],
            group=group,
            among=self.among or self,
        )

    def auc(self) -> Score:
        """Area under the curve."""
        interval = statistics.auc_interval(self.scores, self.bits, self.draws("auc"))
        return self.score("auc", interval, 0.5, self.blind_auc())

    def tpr(self, rate: float) -> Score:
        """Members found where that share of non-members is accused."""
        metric = tpr_name(rate)
        interval = statistics.tpr_interval(self.scores, self.bits, rate, self.draws(metric))
        return self.score(metric, interval, rate, self.blind_tpr(rate))

    def balanced_accuracy(self, threshold: float) -> Score:
        """Mean of the shares of members and of non-members that are told right."""
        interval = statistics.balanced_accuracy(self.scores, self.bits, threshold)
        without = statistics.balanced_accuracy(*self.known(), 0.0).value
        return self.score(BALANCED, interval, 0.5, without)

    def blind_auc(self) -> float:
        """Area under the curve of who knows inputs alone.

        Of a few records that is mostly noise, which would raise the bar by chance: a group has the value
        of all candidates, unless in the group more than guessing is shown.
        """
        if self.among is None:
            return statistics.auc(*self.known())
        own = statistics.auc_interval(*self.known(), self.draws("blind auc"))
        return own.value if own.low > 0.5 else self.among.blind_auc()

    def blind_tpr(self, rate: float) -> float:
        """Members whom they find at that share of accused non-members; see ``blind_auc``."""
        if self.among is None:
            return statistics.tpr_at(*self.known(), rate)
        own = statistics.tpr_interval(*self.known(), rate, self.draws(f"blind {tpr_name(rate)}"))
        return own.value if own.low > rate else self.among.blind_tpr(rate)

    def known(self) -> tuple[np.ndarray, np.ndarray]:
        """Blind scores, where there are any, and their bits."""
        known = np.isfinite(self.blind)
        return self.blind[known], self.bits[known]

    def draws(self, metric: str) -> np.random.Generator:
        """Of one metric's resamples."""
        named = [part for part in (self.group, metric) if part]
        return statistics.numpy_rng(child_rng(self.rng, "bootstrap", self.seat, *named))

    def score(self, metric: str, interval: Interval, chance: float, without: float) -> Score:
        """With the better of a coin and the blind classifier as its blind value."""
        better = np.isfinite(without) and without > chance
        return Score(
            self.goal,
            f"{metric}_{self.group}" if self.group else metric,
            self.seat,
            *interval[:3],
            n=int(self.bits.sum()),
            n_negative=int((~self.bits).sum()),
            blind=float(without) if better else chance,
            blind_name="inputs alone" if better else "chance",
            reliable=interval.reliable,
            note=interval.note,
        )


def tpr_name(rate: float) -> str:
    """``tpr_at_1pct_fpr``."""
    return f"tpr_at_{rate * 100:g}pct_fpr"
