import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from privbench.checks.stage import swapped
from privbench.contract import LabelGuess, child_rng
from privbench.errors import PluginError
from privbench.scoring.label import dealt, paired
from privbench.scoring.scorer import Scorer


def run(scorer, guess, victims, **kwargs):
    (score,) = scorer.score("label", "host", guess, victims=victims, **kwargs).scores
    return score


@pytest.fixture(scope="session")
def victims(opened, rows):
    return opened.truth.victims(rows, frozenset(), 90, 0)


def test_the_oracle_scores_perfectly(scorer, opened, victims):
    score = run(scorer, LabelGuess(victims, opened.truth.samples(victims).y), victims)
    assert (score.metric, score.value, score.high) == ("label_accuracy", 1.0, 1.0)
    assert score.verdict() == "leaks" and score.blind_name == "commonest class"
    assert "chance 0.333" in score.note


def test_one_class_for_all_is_blind(scorer, opened, victims):
    prior = opened.population.auxiliary.y
    label = int(torch.bincount(prior).argmax())
    score = run(scorer, LabelGuess(victims, torch.full((len(victims),), label)), victims)
    assert score.value == score.blind and score.verdict() == "not shown to leak"
    nothing = LabelGuess(victims[:0], prior[:0])
    assert run(scorer, nothing, victims).value == score.blind, "not guessed counts as blind"


def test_a_permuted_truth_takes_the_score_away(opened, rows):
    """SCORING: at least 179 of 200 intervals hold the blind value."""
    truth = opened.truth
    victims = truth.victims(rows, frozenset(), 90, 0)
    guess = LabelGuess(victims, truth.samples(victims).y)
    grouped = LabelGuess(victims, guess.labels, victims[:, 0].contiguous())
    for each, draws, least in ((guess, 200, 179), (grouped, 4, 4)):
        held = 0
        for draw in range(draws):
            score = run(Scorer(swapped(opened, draw), 0), each, victims, seen=rows)
            held += score.low <= score.blind
        assert held >= least


def test_unknown_order_is_matched_and_compared_with_matching(scorer, opened, rows, victims):
    y = opened.truth.samples(rows).y
    mixed = torch.cat([part[torch.randperm(10)] for part in y.split(10)])
    guess = LabelGuess(rows, mixed, rows[:, 0].contiguous())
    score = run(scorer, guess, victims, seen=rows)
    assert score.value == 1.0
    assert score.blind > 0.6, "matching alone is right for most of a batch of three classes"
    assert score.blind_name in ("class shares", "matched to strangers")
    strangers = opened.population.held_out.y[: len(rows)]
    stranger = LabelGuess(rows, strangers, rows[:, 0].contiguous())
    assert run(scorer, stranger, victims, seen=rows).verdict() == "not shown to leak"


def test_matching_is_the_best_there_is(rng):
    """Its slow twin: the assignment problem."""
    for draw in range(20):
        r = child_rng(rng, draw)
        guesses, targets = (torch.randint(4, (n,), generator=r) for n in (7, 9 if draw % 2 else 5))
        found = paired(guesses, targets, r)
        made = found >= 0
        assert int(made.sum()) == min(len(guesses), len(targets))
        assert len(found[made].unique()) == int(made.sum()), "no guess is used twice"
        equal = (guesses[:, None] == targets).double().numpy()
        best = equal[linear_sum_assignment(-equal)].sum()
        assert (guesses[found[made]] == targets[made]).sum() == best


def test_labels_are_dealt_by_shares():
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert torch.bincount(dealt(shares, 10)).tolist() == [5, 3, 2]
    assert torch.bincount(dealt(shares, 4), minlength=3).tolist() == [2, 1, 1]


@pytest.mark.parametrize("bad", [torch.tensor([3]), torch.tensor([0.5]), torch.tensor([-1])])
def test_labels_that_are_none_are_refused(scorer, victims, bad):
    with pytest.raises(PluginError, match="label"):
        run(scorer, LabelGuess(victims[:1], bad), victims)


def test_power_on_a_planted_signal(opened, rows):
    """Right half of the time, else at random: two thirds right of 90, found in each of 20 draws."""
    truth = opened.truth
    victims = truth.victims(rows, frozenset(), 90, 0)
    y, random = truth.samples(victims).y, np.random.default_rng(0)
    for _ in range(20):
        noise = torch.as_tensor(random.integers(0, 3, len(y)))
        said = torch.where(torch.as_tensor(random.random(len(y)) < 0.5), y, noise)
        assert run(Scorer(opened, 0), LabelGuess(victims, said), victims).verdict() == "leaks"
