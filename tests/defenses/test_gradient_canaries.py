"""Gradient canaries: what is released along them is a clip or nothing, and noise; batches are Poisson."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from attacks.audit.gradient_canary import GradientCanary
from defenses.dpsgd import DpSgd
from privbench.compose.api import run
from privbench.contract import (
    Net,
    Observed,
    Recipe,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
    no_rows,
    spec_of,
)
from privbench.data.truth import Truth
from privbench.errors import NotApplicable, TrainingError, UsageError
from privbench.regimes.base import private
from privbench.regimes.centralized import Centralized
from privbench.regimes.fedavg import FedAvg
from privbench.regimes.training import Training

NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 24, 10]}))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def records(n: int = 60) -> Samples:
    draw = rng(0)
    x = torch.rand(n, 1, 8, 8, generator=draw)
    return Samples(x, torch.randint(10, (n,), generator=draw))


def trained(steps: int = 40, **settings: object) -> Training:
    defense = DpSgd(**{"noise": 0.0, "clip": 0.5, "canaries": 12, "spent": 1.0, **settings})
    recipe = Recipe(NET, Spec("torch.optim.SGD", {"lr": 0.2}), epochs=10, batch=15, steps=steps)
    training = Training(private(recipe, defense, 60, steps), records(), rng())
    for _ in training:
        pass
    return training


def test_a_canary_is_worth_a_clip_and_nobody_else_is_seen() -> None:
    seen = trained().learner.observed()
    assert seen.coins.shape == seen.drawn.shape == seen.seen.shape == (40, 12)
    expected = (seen.coins & seen.drawn).float()
    torch.testing.assert_close(seen.seen, expected, atol=1e-4, rtol=0)
    assert 0 < int(expected.sum()) < int(seen.drawn.sum())


def test_noise_along_canaries_is_that_of_the_mechanism() -> None:
    seen = trained(steps=80, noise=2.0).learner.observed()
    rest = (seen.seen - seen.coins.float())[seen.drawn]
    assert abs(float(rest.mean())) < 4 * 2.0 / len(rest) ** 0.5
    assert float(rest.std()) == pytest.approx(2.0, rel=0.2)  # about 240 draws


def test_canaries_are_drawn_with_their_records() -> None:
    """Beside the batches that were learned from, one by one."""
    defense = DpSgd(noise=0.0, canaries=60, spent=1.0)
    recipe = Recipe(NET, Spec("torch.optim.SGD", {"lr": 0.2}), epochs=5, batch=15)
    training = Training(private(recipe, defense, 60, 20), records(), rng())
    sizes = [len(step.positions) for step in training]
    assert training.learner.observed().drawn.sum(dim=1).tolist() == sizes


def test_the_seed_fixes_coins_and_without_canaries_nothing_changes() -> None:
    one, same = trained().learner.observed(), trained().learner.observed()
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    plain = trained(canaries=0)
    assert plain.learner.observed is None


def test_batches_are_poisson_and_no_shuffle() -> None:
    """Sizes are binomial, and a record comes twice in a row as often as at other times."""
    recipe = Recipe(NET, Spec("torch.optim.SGD", {"lr": 0.0}), epochs=500, batch=15)
    assert private(recipe, DpSgd(noise=0.0), 60, 2000).sampling == "poisson"
    learning = spec_of(DpSgd(noise=1.0, batch=15, spent=1.0))
    recipe = replace(recipe, sampling="poisson", learning=learning)
    order = Training(recipe, records(), rng()).learner
    inside = np.zeros((2000, 60), dtype=bool)
    for step in range(2000):
        inside[step, order.draw().numpy()] = True
    assert np.var(inside.sum(axis=1)) == pytest.approx(60 * 0.25 * 0.75, rel=0.15)
    again = (inside[1:] & inside[:-1]).sum() / inside[:-1].sum()
    assert again == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / inside.sum()) ** 0.5)
    assert chisquare(inside.sum(axis=0)).pvalue > 1e-3


def test_shuffled_batches_would_be_told_apart() -> None:
    recipe = Recipe(NET, Spec("torch.optim.SGD", {"lr": 0.0}), epochs=10, batch=15)
    order = Training(recipe, records(), rng()).learner
    assert {len(order.draw()) for _ in range(40)} == {15}


def test_what_others_train_by_carries_none() -> None:
    audited = DpSgd(noise=0.0, canaries=8).resolved(60, 15, 40)
    assert audited.audited and audited.records == 60
    assert audited.quiet() == DpSgd(noise=0.0).resolved(60, 15, 40)
    with pytest.raises(UsageError, match="regime=fedavg carries no gradient canaries"):
        FedAvg(learning=DpSgd(noise=1.0, canaries=8)).recipe(NET, 120)
    assert Centralized(learning=DpSgd(noise=0.0, canaries=8)).recipe(NET, 120).learning is not None


@pytest.mark.parametrize("canaries", [-1, 2.5])
def test_settings_out_of_range_are_refused(canaries: object) -> None:
    with pytest.raises(UsageError, match="canaries"):
        DpSgd(canaries=canaries)


def test_more_canaries_than_records_are_refused() -> None:
    with pytest.raises(TrainingError, match="61 gradient canaries need as many records"):
        trained(canaries=61)


def test_coins_are_the_truths_alone(tmp_path: Path) -> None:
    seen = trained().learner.observed()
    truth = Truth(records())
    truth.observed = seen
    truth.note(0, torch.arange(3))
    truth.save(tmp_path / "truth")
    other = Truth(records())
    other.load(tmp_path / "truth")
    assert isinstance(other.observed, Observed)
    assert torch.equal(other.observed.coins, seen.coins)


def test_the_attack_says_what_is_missing() -> None:
    topology = Topology("centralized", ("owners", "trainer"), ("owners",), NET, 1, 1)
    view = View(Seat("auditor", "outsider"), topology, no_rows().reshape(0, 2))
    with pytest.raises(NotApplicable, match="regime=dpsgd_audited"):
        GradientCanary().run(view, rng())
    notes = {
        "canaries_seen": torch.eye(2),
        "canaries_drawn": torch.tensor([[True, True], [True, False]]),
    }
    guess = GradientCanary().run(replace(view, notes=notes), rng())
    assert guess.scores.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.slow
def test_a_run_of_both_audits(tmp_path: Path) -> None:
    """From words to verdict: without noise everything is seen, and nothing is claimed."""
    quick = ("regime.epochs=3", "regime.learning.noise=0.0", f"out={tmp_path}", "device=cpu")
    steps = run("regime=dpsgd_audited", "threat=iterates", "attack=gradient_canary", *quick)
    assert [score.metric for score in steps.scores] == ["epsilon_composed"]
    assert steps.scores[0].value > 1
    assert steps.scores[0].verdict() == "no claim"
    words = (
        "regime=dpsgd",
        "data.canaries=100",
        "data.canary=mislabelled",
        "attack=loss_threshold",
    )
    box = run(*words, *quick)
    assert "epsilon_one_run" in {score.metric for score in box.scores}
