"""Recurrence: rows of two epochs are told to be one sample, unless what they gave is drowned."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score

from attacks.membership.recurrence import Recurrence
from privbench.contract import Layer, Message, Net, Seat, Spec, Topology, View
from privbench.errors import NotApplicable, UsageError

LAYER = Layer("body", "body", "body", 12, (12,), ("body.weight",))
NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": (4, 12, 3)}))
BATCH, SAMPLES = 10, 40
PER_EPOCH = SAMPLES // BATCH
TOPOLOGY = Topology("slicenet", ("a", "b"), ("a", "b"), NET, 8, PER_EPOCH, layers=(LAYER,))
RNG = torch.Generator()


def crossed(noise: float, half: bool = False) -> tuple[View, torch.Tensor]:
    """Two epochs of 40 samples in other orders; pairs of rows, every other one of one sample."""
    rng = torch.Generator().manual_seed(2)
    given = torch.rand(SAMPLES, 12, generator=rng)
    messages, place = [], torch.empty(2, SAMPLES, 2, dtype=torch.int64)
    for epoch in (0, 1):
        for number, batch in enumerate(torch.randperm(SAMPLES, generator=rng).split(BATCH)):
            step = epoch * PER_EPOCH + number
            sent = given[batch] + noise * torch.randn(BATCH, 12, generator=rng)
            sent = sent.half() if half else sent
            ends = ("a", "b", "activation", "body")
            messages.append(Message(step, "train", *ends, None, sent, torch.arange(BATCH)))
            rows = torch.stack([torch.full((BATCH,), step), torch.arange(BATCH)], dim=1)
            place[epoch, batch] = rows
    same = torch.arange(SAMPLES) % 2 == 0
    other = torch.where(same, torch.arange(SAMPLES), torch.arange(SAMPLES).roll(2))
    victims = torch.stack([place[0], place[1][other]], dim=1).reshape(-1, 2)
    return View(Seat("b", "peer", ("b",)), TOPOLOGY, victims, tuple(messages)), same


def area(view: View, same: torch.Tensor) -> float:
    return float(roc_auc_score(same, Recurrence().run(view, RNG).scores))


@pytest.mark.parametrize("half", [False, True])
def test_one_sample_is_told_from_two(half: bool) -> None:
    assert area(*crossed(0.02, half)) == 1.0


def test_noise_hides_it_by_degrees() -> None:
    little, much, drowned = (area(*crossed(noise)) for noise in (0.1, 0.4, 30.0))
    assert little > 0.9 and little >= much > 0.55
    assert abs(drowned - 0.5) < 0.3  # 3.3 standard errors of 20 and 20


def test_whom_it_did_not_see_twice_gets_a_middling_score() -> None:
    view, _ = crossed(0.02)
    some = replace(view, messages=view.messages[:-1])
    scores = Recurrence().run(some, RNG).scores
    missing = (view.victims[1::2, 0] == 7).nonzero().flatten()
    assert len(missing) == BATCH and scores.isfinite().all()
    assert len(scores[missing].unique()) == 1


def test_it_says_what_it_lacks() -> None:
    view, _ = crossed(0.02)
    with pytest.raises(NotApplicable, match=r"threat\.steps=all"):
        Recurrence().run(replace(view, messages=view.messages[:PER_EPOCH]), RNG)
    with pytest.raises(NotApplicable, match="no pairs"):
        Recurrence().run(replace(view, victims=view.victims[:3]), RNG)
    with pytest.raises(UsageError, match="sharpness"):
        Recurrence(sharpness=0.0)
