from dataclasses import replace

import pytest
import torch

from privbench.contract import InversionGuess
from privbench.errors import NotApplicable, PluginError
from privbench.scoring.evaluator import Evaluator, judged, train_evaluator
from privbench.scoring.scorer import Scorer


def class_means(samples):
    return torch.stack([samples.x[samples.y == c].mean(dim=0) for c in range(3)])


def test_true_class_means_are_recognised(scorer, opened):
    guess = InversionGuess(class_means(opened.population.train))
    result = scorer.score("inversion", "world", guess)
    score = result.scores[0]
    assert score.value == 1.0 and score.n == 3
    assert score.blind == pytest.approx(1 / 3)
    assert score.low == pytest.approx(0.025 ** (1 / 3), abs=1e-6)
    assert result.references[0].value == 1.0


def test_wrong_classes_and_blind_images_do_not_leak(scorer, opened):
    means = class_means(opened.population.train)
    assert scorer.score("inversion", "world", InversionGuess(means.roll(1, 0))).scores[0].value == 0
    mean = opened.population.auxiliary.x.mean(dim=0).expand(3, -1, -1, -1)
    score = scorer.score("inversion", "world", InversionGuess(mean)).scores[0]
    assert score.value == score.blind
    assert score.verdict() == "not shown to leak"


def test_the_evaluator_is_good_and_repeats_itself(opened):
    held_out = opened.population.held_out
    one, two = (
        train_evaluator(opened.evaluator, 3, torch.Generator().manual_seed(1)).module()
        for _ in range(2)
    )
    assert (judged(one, held_out.x) == held_out.y).float().mean() > 0.95
    assert torch.equal(one(held_out.x), two(held_out.x))


def test_images_get_convolutions():
    assert Evaluator((3, 16, 16), 5)(torch.zeros(2, 3, 16, 16)).shape == (2, 5)
    assert Evaluator((7,), 5)(torch.zeros(2, 7)).shape == (2, 5)


def test_guesses_that_cannot_be(scorer, opened):
    with pytest.raises(PluginError, match="one guess a class"):
        scorer.score("inversion", "world", InversionGuess(torch.zeros(2, 1, 6, 6)))
    without = Scorer(replace(opened, evaluator=None), 0)
    with pytest.raises(NotApplicable, match="thirds"):
        without.score("inversion", "world", InversionGuess(torch.zeros(3, 1, 6, 6)))
