"""Scores of a guess at what a class looks like."""

from __future__ import annotations

import torch
from torch import nn

from privbench.contract import InversionGuess, Samples
from privbench.errors import PluginError
from privbench.scoring import images, rates
from privbench.scoring.evaluator import judged
from privbench.scoring.prior import blind_images
from privbench.scoring.score import Measured, Score, SeatResult


def score_inversion(
    guess: InversionGuess,
    seat: str,
    evaluator: nn.Module,
    prior: Samples,
    classes: int,
    device: str = "cpu",
) -> SeatResult:
    """Ask the evaluator whether it sees each class in its guess.

    Args:
        prior: records of the same distribution, for the blind images.

    Returns:
        ``evaluator_top1``, its interval over classes; as a reference, the share of classes that the
        evaluator sees in any auxiliary record of theirs.

    Raises:
        PluginError: not one guess a class, of the records' shape.
    """
    expected = (classes, *prior.x.shape[1:])
    if tuple(guess.x.shape) != expected:
        raise PluginError(f"expected one guess a class, {expected}, got {tuple(guess.x.shape)}")
    labels = torch.arange(classes)
    hits = (judged(evaluator, guess.x, device) == labels).double()
    blind = [
        (float((judged(evaluator, image.x, device) == labels).double().mean()), image)
        for image in blind_images(Samples(prior.x), labels)
    ]
    value, image = max(blind, key=lambda pair: (pair[0], pair[1].name))
    score = _score(seat, hits, value, image.name, "")
    found = torch.zeros(classes, dtype=torch.float64)
    seen = judged(evaluator, prior.x, device)
    if prior.y is not None:
        found[seen[seen == prior.y].unique()] = 1.0
    method = "an auxiliary record that the evaluator calls the class"
    measured = Measured("evaluator_top1", labels.numpy(), hits.numpy())
    reference = _score(seat, found, value, image.name, method)
    means = blind_images(prior, labels)[-1]  # of each class, where the prior has labels
    shown = images.pictured(seat, means.x, guess.x.cpu(), image.x)
    return SeatResult(seat, (score,), (measured,), (reference,), shown)


def _score(seat: str, hits: torch.Tensor, blind: float, name: str, method: str) -> Score:
    interval = rates.clopper_pearson(int(hits.sum()), len(hits))
    return Score(
        "inversion",
        "evaluator_top1",
        seat,
        *interval[:3],
        n=len(hits),
        blind=blind,
        blind_name=name,
        reliable=interval.reliable,
        method=method,
    )
