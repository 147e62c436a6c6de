"""An audit of every step finds what is wrong with DP-SGD, and accuses nobody else."""

from __future__ import annotations

import time
from functools import cache

import pytest
import torch
from ledger import note
from planted import (
    ClippingPerBatch,
    ClippingSkipped,
    NoiseAveraged,
    NoiseHalved,
    SamplingUnderReported,
)
from sklearn.datasets import load_digits

from attacks.audit.gradient_canary import GradientCanary
from defenses.dpsgd import DpSgd
from privbench.contract import Net, Recipe, Samples, Seat, Spec, Topology, View, no_rows
from privbench.regimes.base import private
from privbench.regimes.training import Training
from privbench.scoring.audit import OBSERVATIONS, Claim, score_steps
from privbench.scoring.score import Score

pytestmark = [pytest.mark.golden, pytest.mark.timeout(1800)]

RECORDS, BATCH, EPOCHS = 200, 50, 30  # 120 steps
CANARIES = 96  # some 1,440 observations a side
NOISE = 1.0
NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 24, 10]}))
SEAT = Seat("auditor", "outsider", grants=frozenset({"every_step"}))
SETTING = (
    "digits, 200 records, MLP 64-24-10, Poisson batches of 50, 120 steps, noise 1, 96 canaries"
)
BUGS = (NoiseHalved, NoiseAveraged, ClippingSkipped, ClippingPerBatch, SamplingUnderReported)


@cache
def _resolved(kind: type[DpSgd]) -> DpSgd:
    return kind(noise=NOISE, canaries=CANARIES).resolved(RECORDS, BATCH, EPOCHS * 4)


@cache
def _bill(noise: float, rate: float, steps: int) -> float:
    return DpSgd().bill(noise, rate, steps)


def _audited(kind: type[DpSgd], seed: int) -> Score:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(seed))
    x = torch.as_tensor(digits.images, dtype=torch.float32)[order[:RECORDS], None] / 16
    samples = Samples(x, torch.as_tensor(digits.target)[order[:RECORDS]])
    recipe = Recipe(NET, Spec("torch.optim.SGD", {"lr": 0.5}), epochs=EPOCHS, batch=BATCH)
    recipe = private(recipe, _resolved(kind), RECORDS, EPOCHS * 4)
    training = Training(recipe, samples, torch.Generator().manual_seed(seed))
    for _ in training:
        pass
    assert training.learner.observed is not None
    seen = training.learner.observed()
    topology = Topology("centralized", ("owners", "trainer"), ("owners",), NET, 1, 1)
    notes = {"canaries_seen": seen.seen, "canaries_drawn": seen.drawn}
    view = View(SEAT, topology, no_rows().reshape(0, 2), notes=notes)
    guess = GradientCanary().run(view, torch.Generator().manual_seed(seed))
    cost = _resolved(kind).cost()
    claim = Claim(cost.epsilon, cost.delta, None, _bill)
    (score,) = score_steps(
        guess, "auditor", seen, claim, torch.Generator().manual_seed(seed)
    ).scores
    assert min(score.n, score.n_negative) >= OBSERVATIONS
    return score


@pytest.mark.parametrize("kind", BUGS)
def test_a_planted_bug_is_found(kind: type[DpSgd]) -> None:
    start = time.perf_counter()
    scores = [_audited(kind, seed) for seed in range(10)]
    found = sum(score.verdict() == "claim broken" for score in scores)
    note(
        f"Nasr 2023, gradient canaries, {_words(kind)}, seeds of 10 in which it is found",
        SETTING,
        published=None,
        ours=found,
        low=9,
        n=10,
        seconds=time.perf_counter() - start,
        remark=_told(scores),
    )
    assert found >= 9


def test_right_code_is_not_accused() -> None:
    start = time.perf_counter()
    scores = [_audited(DpSgd, seed) for seed in range(20)]
    below = sum(score.value <= score.claim for score in scores)
    note(
        "Nasr 2023, gradient canaries, correct code, seeds of 20 in which it stays below the claim",
        SETTING,
        published=None,
        ours=below,
        low=19,
        n=20,
        seconds=time.perf_counter() - start,
        remark=_told(scores),
    )
    assert below >= 19
    assert all(score.value > 0 for score in scores)


def _words(kind: type[DpSgd]) -> str:
    return "".join(" " + c.lower() if c.isupper() else c for c in kind.__name__).strip()


def _told(scores: list[Score]) -> str:
    values = sorted(score.value for score in scores)
    return f"claimed {scores[0].claim:.3g}; measured {values[0]:.3g} to {values[-1]:.3g} at least"
