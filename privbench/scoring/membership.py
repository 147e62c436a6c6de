"""Scores of a guess at who was in the training data."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from privbench.contract import MembershipGuess, child_rng
from privbench.errors import PluginError
from privbench.scoring import statistics
from privbench.scoring.score import Measured, Score, SeatResult
from privbench.scoring.statistics import Interval

FALSE_POSITIVES = (0.01, 0.001)


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
    bits = places.numpy()[asked]
    scores = guess.scores.double().cpu().numpy()[asked]
    prior = blind[asked]
    known = np.isfinite(prior)
    records = np.flatnonzero(asked)
    found: list[Score] = []

    def add(metric: str, interval: Interval, chance: float, without: float) -> None:
        better = np.isfinite(without) and without > chance
        found.append(
            Score(
                "membership",
                metric,
                seat,
                *interval[:3],
                n=int(bits.sum()),
                n_negative=int((~bits).sum()),
                blind=float(without) if better else chance,
                blind_name="inputs alone" if better else "chance",
                reliable=interval.reliable,
                note=interval.note,
            )
        )

    add(
        "auc",
        statistics.auc_interval(scores, bits, _rng(rng, seat, "auc")),
        0.5,
        statistics.auc(prior[known], bits[known]),
    )
    for rate in FALSE_POSITIVES:
        metric = f"tpr_at_{rate * 100:g}pct_fpr"
        interval = statistics.tpr_interval(scores, bits, rate, _rng(rng, seat, metric))
        add(metric, interval, rate, statistics.tpr_at(prior[known], bits[known], rate))
    measured = [Measured("auc", records, scores, bits)]
    if guess.threshold is not None:
        interval = statistics.balanced_accuracy(scores, bits, guess.threshold)
        without = statistics.balanced_accuracy(prior[known], bits[known], 0.0).value
        add("balanced_accuracy", interval, 0.5, without)
        measured.append(Measured("balanced_accuracy", records, scores, bits, guess.threshold))
    return SeatResult(seat, tuple(found), tuple(measured))


def _rng(rng: torch.Generator, seat: str, metric: str) -> np.random.Generator:
    return statistics.numpy_rng(child_rng(rng, "bootstrap", seat, metric))
