"""ROC curves with bands, of the seats that a report draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from privbench.contract import child_rng
from privbench.scoring import statistics
from privbench.scoring.score import Roc, SeatResult

POINTS = 48  # false positive rates, evenly spaced on a logarithmic axis


def curves(results: Sequence[SeatResult], seed: int) -> tuple[Roc, ...]:
    """The curve of each seat where membership was guessed; of more than three, of three.

    Those are the seats with the largest, the middle and the least AUC, in this order. Picked by the
    same records that draw them, they are illustrations: the summary's rows are the estimates.
    """
    found = [
        (result.seat, measured.values, measured.member)
        for result in results
        for measured in result.measured
        if measured.metric == "auc" and measured.member is not None
    ]
    ranked = [(statistics.auc(scores, bits), seat, scores, bits) for seat, scores, bits in found]
    ranked = [each for each in ranked if np.isfinite(each[0])]
    if len(ranked) > 3:
        ranked.sort(key=lambda each: -each[0])
        ranked = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    rng = child_rng(torch.Generator().manual_seed(seed), "roc")
    return tuple(_curve(seat, scores, bits, rng) for _, seat, scores, bits in ranked)


def _curve(seat: str, scores: np.ndarray, bits: np.ndarray, rng: torch.Generator) -> Roc:
    negatives = int((~bits).sum())
    rates = np.geomspace(1 / negatives, 1, POINTS).clip(max=1)
    draws = statistics.numpy_rng(child_rng(rng, seat))
    tpr, low, high = statistics.tpr_band(scores, bits, rates, draws).T.tolist()
    reliable = min(1.0, statistics.EXPECTED / negatives)
    return Roc(seat, tuple(rates.tolist()), tuple(tpr), tuple(low), tuple(high), reliable)
