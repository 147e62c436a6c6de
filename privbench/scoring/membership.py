"""Scores of a guess at who was in the training data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from privbench.contract import MembershipGuess, child_rng
from privbench.errors import PluginError
from privbench.scoring import statistics
from privbench.scoring.rates import Interval
from privbench.scoring.score import Measured, Score, SeatResult

FALSE_POSITIVES = (0.01, 0.001)
BALANCED = "balanced_accuracy"


def score_membership(
    guess: MembershipGuess,
    seat: str,
    places: Bool[Tensor, " candidates"],
    own: Bool[Tensor, " candidates"],
    blind: np.ndarray,
    rng: torch.Generator,
) -> SeatResult:
    """Compare scores with membership bits.

    Args:
        places: the bits, in the candidates' order.
        own: candidates that are the seat's own records, left out: it knows them.
        blind: scores of a classifier that knows inputs alone (NaN where it gave none).

    Returns:
        ``auc`` (headline), ``tpr_at_1pct_fpr``, ``tpr_at_0.1pct_fpr`` and, where the attack fixed a
        threshold, ``balanced_accuracy``.

    Raises:
        PluginError: not one score a candidate.
    """
    if len(guess.scores) != len(places):
        raise PluginError(
            f"expected one score for each of the {len(places)} candidates, got {len(guess.scores)}"
        )
    asked = (~own).numpy()
    compared = _Compared(
        seat, guess.scores.double().cpu().numpy()[asked], places.numpy()[asked], blind[asked], rng
    )
    found = [compared.auc(), *(compared.tpr(rate) for rate in FALSE_POSITIVES)]
    records = np.flatnonzero(asked)
    measured = [Measured("auc", records, compared.scores, compared.bits)]
    if guess.threshold is not None:
        found.append(compared.balanced_accuracy(guess.threshold))
        measured.append(replace(measured[0], metric=BALANCED, threshold=guess.threshold))
    return SeatResult(seat, tuple(found), tuple(measured))


@dataclass(frozen=True, eq=False)
class _Compared:
    """Scores of the candidates that count, beside their bits and what is known without the view."""

    seat: str
    scores: np.ndarray
    bits: np.ndarray
    blind: np.ndarray
    rng: torch.Generator

    def auc(self) -> Score:
        interval = statistics.auc_interval(self.scores, self.bits, self._draws("auc"))
        return self._score("auc", interval, 0.5, statistics.auc(*self._known()))

    def tpr(self, rate: float) -> Score:
        metric = f"tpr_at_{rate * 100:g}pct_fpr"
        interval = statistics.tpr_interval(self.scores, self.bits, rate, self._draws(metric))
        return self._score(metric, interval, rate, statistics.tpr_at(*self._known(), rate))

    def balanced_accuracy(self, threshold: float) -> Score:
        interval = statistics.balanced_accuracy(self.scores, self.bits, threshold)
        without = statistics.balanced_accuracy(*self._known(), 0.0).value
        return self._score(BALANCED, interval, 0.5, without)

    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Blind scores, where there are any, and their bits."""
        known = np.isfinite(self.blind)
        return self.blind[known], self.bits[known]

    def _draws(self, metric: str) -> np.random.Generator:
        return statistics.numpy_rng(child_rng(self.rng, "bootstrap", self.seat, metric))

    def _score(self, metric: str, interval: Interval, chance: float, without: float) -> Score:
        """With the better of a coin and the blind classifier as its blind value."""
        better = np.isfinite(without) and without > chance
        return Score(
            "membership",
            metric,
            self.seat,
            *interval[:3],
            n=int(self.bits.sum()),
            n_negative=int((~self.bits).sum()),
            blind=float(without) if better else chance,
            blind_name="inputs alone" if better else "chance",
            reliable=interval.reliable,
            note=interval.note,
        )
