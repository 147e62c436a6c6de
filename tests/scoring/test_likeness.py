"""Success rates, the evaluator's eye, gains a column, and words that nobody can misread."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from privbench.contract import ReconstructionGuess, Samples
from privbench.data.arrays import arrays
from privbench.data.splits import open_population
from privbench.scoring import evaluator
from privbench.scoring.columns import Columns
from privbench.scoring.evaluator import perceptual, train_evaluator
from privbench.scoring.score import Score
from privbench.scoring.scorer import Scorer


def scores(scorer, guess, victims):
    result = scorer.score("reconstruction", "host", guess, victims=victims)
    return {score.metric: score for score in result.scores}


def test_rates_count_images_beyond_a_threshold(scorer, opened, rows):
    victims = opened.truth.victims(rows, frozenset(), 40, 0)
    x = opened.truth.samples(victims).x.clone()
    x[:10] = (x[:10] - 0.5).abs()  # far below 20 dB
    found = scores(scorer, ReconstructionGuess(victims, x), victims)
    assert found["psnr_20db_rate"].value == 0.75
    assert found["psnr_20db_rate"].blind < 0.1, "what mean images reach"
    assert "ssim_0.6_rate" not in found and "column_gain" not in found


@pytest.fixture(autouse=True)
def _little_training(monkeypatch):
    monkeypatch.setattr(evaluator, "STEPS", 30)


@pytest.fixture(scope="module")
def large():
    """Digits of 16 by 16 pixels."""
    digits = load_digits()
    x = torch.as_tensor(digits.images[:400], dtype=torch.float32)[:, None] / 16
    return Samples(
        torch.nn.functional.interpolate(x, scale_factor=2), torch.as_tensor(digits.target[:400])
    )


def test_the_evaluator_sees_more_difference_in_more_noise(large):
    eye = train_evaluator(large[:200], 10, torch.Generator().manual_seed(0)).module()
    x, noise = (
        large.x[200:240],
        torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(1)),
    )
    far = [float(perceptual(eye, (x + s * noise).clamp(0, 1), x).mean()) for s in (0, 0.05, 0.3)]
    assert far[0] == 0 and 0 < far[1] < far[2]
    one = perceptual(eye, x[:1].roll(1, 3), x[:1])
    assert np.allclose(one, perceptual(eye, x.roll(1, 3), x)[:1], atol=1e-6), "each by itself"


def test_perceptual_distance_is_scored_where_there_is_an_eye(large):
    opened = open_population(arrays(large.x, large.y), 0)
    opened.population.note(0, torch.arange(30))
    victims = torch.stack([torch.zeros(30, dtype=torch.int64), torch.arange(30)], dim=1)
    true = opened.truth.samples(victims).x
    guess = ReconstructionGuess(victims, (true + 0.1 * torch.rand_like(true)).clamp(0, 1))
    found = scores(Scorer(opened, 0), guess, victims)
    assert found["perceptual"].verdict() == "leaks" and found["ssim_0.6_rate"].value > 0.5
    blind = replace(guess, x=opened.population.auxiliary.x.mean(0).expand(30, -1, -1, -1))
    assert scores(Scorer(opened, 0), blind, victims)["perceptual"].verdict() == "not shown to leak"
    without = Scorer(replace(opened, evaluator=None), 0)
    assert "perceptual" not in scores(without, guess, victims)


def test_a_column_gains_over_what_is_usual_in_it():
    rng = torch.Generator().manual_seed(0)
    numeric = torch.rand(200, 2, generator=rng)
    two = (torch.rand(200, 1, generator=rng) < 0.3).float()
    constant = torch.ones(200, 1)
    x = torch.cat([numeric, two, constant], dim=1)
    columns = Columns.of(x)
    assert columns.two.tolist() == [False, False, True, True]
    assert columns.telling.tolist() == [True, True, True, False]
    assert np.allclose(columns.gain(x, x), 1.0)
    usual = columns.usual.float().expand(200, -1)
    assert columns.gain(usual, x).mean() == pytest.approx(0.0, abs=1e-6)
    assert columns.gain(1 - x, x).mean() < 0, "worse than the usual"
    half = x.clone()
    half[:, 0] = float(columns.usual[0])  # one column of three not known
    assert columns.gain(half, x).mean() == pytest.approx(2 / 3, abs=1e-6)


def test_tables_of_numbers_are_scored_by_columns():
    rng = np.random.default_rng(0)
    x, y = rng.random((360, 5)), np.arange(360) % 2
    opened = open_population(arrays(x, y), 0)
    opened.population.note(0, torch.arange(40))
    victims = torch.stack([torch.zeros(40, dtype=torch.int64), torch.arange(40)], dim=1)
    true = opened.truth.samples(victims).x
    found = scores(Scorer(opened, 0), ReconstructionGuess(victims, true), victims)
    assert found["column_gain"].value == 1.0 and found["column_gain"].verdict() == "leaks"
    assert abs(found["column_gain"].blind) < 0.1
    assert next(iter(found)) == "identification" and "psnr_20db_rate" not in found
    noise = torch.rand(true.shape, generator=torch.Generator().manual_seed(0))
    worse = scores(Scorer(opened, 0), ReconstructionGuess(victims, noise), victims)["column_gain"]
    assert worse.against_blind() == "worse than guessing"


@pytest.mark.parametrize(
    ("metric", "low", "high", "words"),
    [
        ("psnr_db", 13.0, 15.0, "better than guessing"),
        ("psnr_db", 8.0, 9.0, "worse than guessing"),
        ("psnr_db", 11.0, 13.0, "not shown to beat guessing"),
        ("mse", 8.0, 9.0, "better than guessing"),
        ("perceptual", 13.0, 15.0, "worse than guessing"),
        ("psnr_db", float("nan"), 13.0, ""),
    ],
)
def test_words_for_numbers(metric, low, high, words):
    score = Score("reconstruction", metric, "host", 12.0, low, high, 50, blind=12.0)
    assert score.against_blind() == words
