"""Scores of a guess at who was in the training data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from privbench.contract import MembershipGuess
from privbench.errors import PluginError
from privbench.scoring.compared import BALANCED, Compared
from privbench.scoring.devices import Devices
from privbench.scoring.score import Measured, SeatResult
from privbench.scoring.vulnerable import People, most_vulnerable

FALSE_POSITIVES = (0.01, 0.001)


def score_membership(
    guess: MembershipGuess,
    seat: str,
    places: Bool[Tensor, " candidates"],
    own: Bool[Tensor, " candidates"],
    blind: np.ndarray,
    rng: torch.Generator,
    people: People | None = None,
    devices: Devices | None = None,
) -> SeatResult:
    """Compare scores with membership bits.

    Args:
        places: the bits, in the candidates' order.
        own: candidates that are the seat's own records, left out: it knows them.
        blind: scores of a classifier that knows inputs alone (NaN where it gave none).
        people: what is known of the candidates without model and truth; None = nothing, and then no
            score is given of the most vulnerable ones.
        devices: candidates by owner; None = one party owns all.

    Returns:
        ``auc`` (headline), ``tpr_at_1pct_fpr``, ``tpr_at_0.1pct_fpr``, where the attack fixed a
        threshold ``balanced_accuracy``, the first two of the most vulnerable records, and
        ``auc_devices``.

    Raises:
        PluginError: not one score a candidate.
    """
    if len(guess.scores) != len(places):
        raise PluginError(
            f"expected one score for each of the {len(places)} candidates, got {len(guess.scores)}"
        )
    asked = np.flatnonzero((~own).numpy())
    scores = guess.scores.double().cpu().numpy()
    compared = Compared(seat, asked, scores[asked], places.numpy()[asked], blind[asked], rng)
    found = [compared.auc(), *(compared.tpr(rate) for rate in FALSE_POSITIVES)]
    measured = [Measured("auc", asked, compared.scores, compared.bits)]
    if guess.threshold is not None:
        found.append(compared.balanced_accuracy(guess.threshold))
        measured.append(replace(measured[0], metric=BALANCED, threshold=guess.threshold))
    if people is not None:
        found += most_vulnerable(compared, people, guess.exposure)
    crowd = None if devices is None else devices.score(compared, own.numpy())
    parts = None if devices is None else devices.grouped(compared, own.numpy())
    if crowd is not None and parts is not None:
        found.append(crowd)
        measured.append(Measured(crowd.metric, parts.records, parts.scores, parts.bits))
    return SeatResult(seat, tuple(found), tuple(measured))


def score_recurrence(
    guess: MembershipGuess,
    seat: str,
    first: Int64[Tensor, " pairs"],
    second: Int64[Tensor, " pairs"],
    rng: torch.Generator,
) -> SeatResult:
    """Compare scores of pairs with whether each is of one sample; a coin is the blind guess.

    Args:
        first, second: numbers of the samples behind each pair.

    Returns:
        as ``score_membership``, of the goal ``recurrence``.

    Raises:
        PluginError: not one score a pair.
    """
    if len(guess.scores) != len(first):
        raise PluginError(
            f"expected one score for each of the {len(first)} pairs of victims, got {len(guess.scores)}"
        )
    scores, bits = guess.scores.double().cpu().numpy(), (first == second).numpy()
    nothing = np.full(len(bits), np.nan)
    compared = Compared(seat, first.numpy(), scores, bits, nothing, rng, goal="recurrence")
    found = (compared.auc(), *(compared.tpr(rate) for rate in FALSE_POSITIVES))
    return SeatResult(seat, found, (Measured("auc", first.numpy(), scores, bits),))
