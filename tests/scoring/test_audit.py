"""Audits: quiet without information, loud on ideal canaries, never above what is true; calm words."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import privbench
from privbench.contract import MembershipGuess, Net, Observed, Recipe, Spec
from privbench.data.digits import Digits
from privbench.data.splits import open_population
from privbench.errors import PluginError
from privbench.regimes.training import train
from privbench.report.report import Names, Report, SeatFacts
from privbench.report.rows import csv_of, rows_of
from privbench.scoring import bounds, power
from privbench.scoring.audit import Claim, score_canaries, score_steps
from privbench.scoring.score import Score

NAMES = ["epsilon_one_run", "epsilon_one_run_gaussian", "epsilon_two_rates", "epsilon_gaussian"]
DELTA = 1e-5


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def audited(mu: float, seed: int, claim: Claim, n: int = 400) -> dict[str, Score]:
    """Ideal canaries: normal scores, shifted by mu where inserted."""
    draw = np.random.default_rng(seed)
    bits = draw.random(n) < 0.5
    scores = draw.normal(mu * bits, 1.0)
    found = score_canaries(scores, bits, "anyone", claim, 0.5, rng(seed))
    assert [score.metric for score in found] == NAMES
    return {score.metric: score for score in found}


@pytest.mark.parametrize(
    ("draws", "most"), [(40, 7), pytest.param(200, 21, marks=pytest.mark.slow)]
)
def test_no_information_proves_nothing(draws: int, most: int) -> None:
    """An epsilon lower bound is above 0 in so few: binomial tests at 0.001 of 5 %."""
    found = [audited(0.0, seed, Claim()) for seed in range(draws)]
    for name in NAMES:
        assert sum(scores[name].low > 0 for scores in found) <= most


def test_bounds_stay_below_the_truth_and_above_nothing() -> None:
    true = bounds.epsilon_of(1.5, DELTA)
    found = [audited(1.5, seed, Claim()) for seed in range(40)]
    for name in NAMES:
        lows = [scores[name].low for scores in found]
        assert sum(low <= true for low in lows) >= 33  # binomial test at 0.001 of 95 %
        assert sum(low > 0 for low in lows) >= 39


def test_ties_are_broken_by_chance() -> None:
    bits = np.arange(400) % 2 == 0
    found = score_canaries(np.zeros(400), bits, "anyone", Claim(), 0.5, rng())
    assert all(score.value == 0 for score in found)


@pytest.mark.parametrize("inserted", [0, 40])
def test_all_coins_alike_prove_nothing(inserted: int) -> None:
    bits = np.arange(40) < inserted
    found = score_canaries(np.arange(40.0), bits, "anyone", Claim(3.0), 0.5, rng())
    assert all(math.isfinite(score.value) for score in found)
    assert found[2].value == found[3].value == 0


def test_a_verdict_needs_a_claim_and_power() -> None:
    base = {"goal": "audit", "metric": "epsilon_one_run", "seat": "a", "high": math.inf, "n": 10}

    def verdict(low: float, claim: float | None, power: float | None, reliable: bool = True) -> str:
        score = Score(**base, value=low, low=low, claim=claim, power=power, reliable=reliable)
        return score.verdict()

    assert verdict(1.0, None, None) == "no claim"
    assert verdict(3.1, 3.0, 0.1) == "claim broken"
    assert verdict(3.1, 3.0, 0.1, reliable=False) == "too weak to tell"
    assert verdict(1.0, 3.0, 0.9) == "consistent"
    assert verdict(1.0, 3.0, 0.5) == "too weak to tell"


def test_one_side_is_open_everywhere(tmp_path: Path) -> None:
    """Stored, printed and in the csv: nothing reads infinity as a fault."""
    score = audited(1.0, 0, Claim(3.0))["epsilon_one_run"]
    report = Report(
        Names(threat="released", goal="membership"),
        scores=(score,),
        seats=(SeatFacts("anyone", "outsider"),),
    )
    report.save(tmp_path)
    again = Report.load(tmp_path / "report.json")
    assert again.scores == report.scores and again.scores[0].high == math.inf
    assert f"epsilon at least {score.value:.3f}, power {score.power:.2f}" in str(report)
    assert "inf" not in str(report)
    assert score.against_blind() == "better than guessing"
    frame = report.table()
    assert frame.power[0] == score.power
    assert csv_of(rows_of([report])) == frame.to_csv(index=False)


@pytest.mark.slow
def test_power_is_what_repeated_audits_reach() -> None:
    """Against audits carried out in full, canaries of a mechanism with half the noise."""
    claim = Claim(bounds.epsilon_of(0.6, DELTA), DELTA)
    found = [audited(1.2, seed, claim) for seed in range(100)]
    for name in NAMES:
        reached = np.mean([scores[name].low > claim.epsilon for scores in found])
        assert abs(reached - found[0][name].power) < 0.17  # 3 standard errors of the two


def test_a_claim_of_nothing_has_no_power() -> None:
    draw = np.random.default_rng(0)
    assert power.of_canaries("one_run", 100, 50, math.inf, DELTA, draw) is None
    assert power.of_canaries("one_run", 100, 50, 1e4, DELTA, draw) == 0.0


def observed(mu: float, rate: float, seed: int, steps: int = 100, canaries: int = 64) -> Observed:
    draw = np.random.default_rng(seed)
    coins, drawn = draw.random((steps, canaries)) < 0.5, draw.random((steps, canaries)) < rate
    seen = (coins + draw.normal(0, 1 / mu, coins.shape)) * drawn
    return Observed(*(torch.from_numpy(part) for part in (coins, drawn, seen.astype(np.float32))))


def composed(noise: float, rate: float, steps: int) -> float:
    """Of a central limit theorem; J. Dong et al. 2022, https://arxiv.org/abs/1905.02383."""
    return bounds.epsilon_of(rate * math.sqrt(steps * (math.exp(noise**-2) - 1)), DELTA)


def of_steps(made: Observed, noise: float = 1.0, rate: float = 0.5) -> Score:
    steps = len(made.coins)
    claim = Claim(composed(noise, rate, steps), DELTA, noise, composed)
    guess = MembershipGuess(made.seen[made.drawn], threshold=0.5)
    return score_steps(guess, "auditor", made, claim, rng()).scores[0]


def test_every_step_tells_noise_and_sampling() -> None:
    right = [of_steps(observed(1.0, 0.5, seed)).verdict() for seed in range(20)]
    assert right.count("consistent") >= 19
    assert of_steps(observed(2.0, 0.5, 0)).verdict() == "claim broken"  # half the noise
    assert of_steps(observed(1.0, 1.0, 0)).verdict() == "claim broken"  # twice the sampling rate


def test_few_observations_accuse_nobody() -> None:
    score = of_steps(observed(2.0, 0.5, 0, canaries=20))
    assert score.verdict() == "too weak to tell" and "fewer than 1,000" in score.note


def test_one_score_an_observation() -> None:
    made = observed(1.0, 0.5, 0)
    with pytest.raises(PluginError, match="observations"):
        score_steps(MembershipGuess(made.seen[0]), "a", made, Claim(), rng())


@pytest.mark.slow
def test_canaries_left_out_of_training_prove_nothing() -> None:
    """A real network that learned its records by heart, and whose canaries were never among them."""
    opened = open_population(Digits(canaries=400, canary="mislabelled"), 0)
    people, places = opened.population, opened.truth.places
    stay = torch.ones(len(people.train), dtype=torch.bool)
    stay[places[places >= 0]] = False
    net = Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 48, 10]}))
    recipe = Recipe(net, Spec("torch.optim.SGD", {"lr": 0.3}), epochs=20, batch=32)
    module = train(recipe, people.train[stay], rng()).module()
    canaries = opened.candidates
    with torch.no_grad():
        losses = cross_entropy(module(canaries.x), canaries.y, reduction="none")
    above = dict.fromkeys(NAMES, 0)
    for seed in range(200):
        coins = np.random.default_rng(seed).random(400) < 0.5
        for score in score_canaries(-losses.numpy(), coins, "anyone", Claim(), 0.5, rng(seed)):
            above[score.metric] += score.low > 0
    assert max(above.values()) <= 21, above


@pytest.mark.slow
def test_traffic_is_an_audited_output_and_only_a_claim_is_held_against(tmp_path: Path) -> None:
    words = ("threat=server", "attack=gradient_alignment", "data.canaries=60", "regime.rounds=2")
    for regime, verdict in (("fedavg", "no claim"), ("fedavg_dpsgd", "too weak to tell")):
        report = privbench.run(f"regime={regime}", *words, f"out={tmp_path}")
        audit = [score for score in report.scores if score.goal == "audit"]
        assert [score.metric for score in audit] == NAMES
        assert {score.verdict() for score in audit} == {verdict}
        assert audit[0].claim == (report.target.epsilon if verdict != "no claim" else None)
