from dataclasses import replace

import numpy as np
import pytest
import torch

from privbench.contract import ReconstructionGuess
from privbench.errors import PluginError
from privbench.scoring import images
from privbench.scoring.scorer import Scorer


def run(scorer, guess, victims, **kwargs):
    result = scorer.score("reconstruction", "host", guess, victims=victims, **kwargs)
    return {score.metric: score for score in result.scores}


@pytest.fixture(scope="session")
def victims(opened, rows):
    return opened.truth.victims(rows, frozenset(), 60, 0)


def test_the_oracle_scores_perfectly(scorer, opened, victims):
    found = run(scorer, ReconstructionGuess(victims, opened.truth.samples(victims).x), victims)
    assert found["identification"].value == 1.0
    assert found["psnr_db"].value == images.CAP and "100% at the cap" in found["psnr_db"].note
    assert found["mse"].value == 0.0
    assert "ssim" not in found, "6 pixels are too few for its window"
    assert {score.verdict() for score in found.values()} == {"leaks"}
    assert found["identification"].blind == pytest.approx(1 / 360)


def test_truth_swap_takes_the_score_away(scorer, opened, victims):
    """The same guess, another truth: no better than blind."""
    guess = ReconstructionGuess(victims, opened.truth.samples(victims).x)
    swapped = victims.roll(1, 0)
    stranger = ReconstructionGuess(swapped, guess.x)
    found = run(scorer, stranger, victims)
    assert {score.verdict() for score in found.values()} == {"not shown to leak"}


def test_blind_images_score_at_blind(scorer, opened, victims):
    mean = opened.population.auxiliary.x.mean(dim=0).expand(60, -1, -1, -1)
    found = run(scorer, ReconstructionGuess(victims, mean), victims)
    assert {score.verdict() for score in found.values()} == {"not shown to leak"}
    assert found["psnr_db"].blind_name == "class mean"
    assert found["psnr_db"].value < found["psnr_db"].blind
    assert found["identification"].low <= 1 / 360


def test_victims_that_were_not_guessed_count_as_blind(scorer, opened, victims):
    half = ReconstructionGuess(victims[:30], opened.truth.samples(victims[:30]).x)
    found = run(scorer, half, victims)
    assert 0.5 <= found["identification"].value < 0.6
    assert found["mse"].value == pytest.approx(found["mse"].blind / 2, rel=0.2)
    assert "30 victims were not guessed" in found["mse"].note
    nothing = ReconstructionGuess(victims[:0], opened.truth.samples(victims[:0]).x)
    assert run(scorer, nothing, victims)["mse"].verdict() == "not shown to leak"


def test_psnr_is_the_mean_of_images_not_of_errors(scorer, opened, victims):
    x = opened.truth.samples(victims).x.clone()
    x[:30] = (x[:30] - 0.01).abs()
    x[30:] = (x[30:] - 0.1).abs()
    value = run(scorer, ReconstructionGuess(victims, x), victims)["psnr_db"].value
    assert value == pytest.approx(30, abs=0.5)  # 40 and 20 dB; of the mean error it would be 23


def test_unknown_order_is_matched_inside_the_group(scorer, opened, rows, victims):
    x = opened.truth.samples(rows).x
    mixed = torch.cat([part[torch.randperm(10)] for part in x.split(10)])
    guess = ReconstructionGuess(rows, mixed, rows[:, 0])
    found = run(scorer, guess, victims, seen=rows)
    assert found["identification"].value == 1.0
    alone = run(scorer, ReconstructionGuess(rows, mixed), victims)
    assert alone["identification"].value < 0.5


def test_fewer_guesses_than_rows_may_be_for_any_row_of_their_owner(scorer, opened, rows):
    """One good image of an update of several rows counts, whichever row it names."""
    truth = opened.truth
    step = rows[rows[:, 0] == 20]
    owner = truth.owners_of(step)
    mine = step[owner == owner.mode().values]
    image = truth.samples(mine[-1:]).x
    guess = ReconstructionGuess(mine[:1], image, torch.zeros(1, dtype=torch.int64))
    found = run(scorer, guess, mine, seen=rows)
    assert found["identification"].value >= 1 / len(mine)
    assert f"{len(mine) - 1} victims were not guessed" in found["mse"].note
    other = step[owner != owner.mode().values]
    assert run(scorer, guess, other, seen=rows)["identification"].value < 1 / len(other)


def test_an_update_of_one_owner_says_nothing_of_others(scorer, opened, rows):
    truth = opened.truth
    step = rows[rows[:, 0] == 20]
    owner = truth.owners_of(step)
    mine, other = (step[owner == n] for n in owner.unique()[:2].tolist())
    group = torch.zeros(1, dtype=torch.int64)
    guess = ReconstructionGuess(mine[:1], truth.samples(other[:1]).x, group)
    found = run(scorer, guess, other[:1], seen=rows)
    assert "1 victims were not guessed" in found["mse"].note
    own = frozenset(owner.unique()[2:].tolist())
    two = torch.cat([mine[:1], other[1:2]])  # an aggregate of others: any of their rows, not mine
    both = ReconstructionGuess(two, truth.samples(two).x.flip(0), group.expand(2))
    for victim in two.split(1):
        assert run(scorer, both, victim, seen=rows, owned=own)["identification"].value == 1.0


def test_matching_alone_is_not_leakage(scorer, opened, rows, victims):
    """Strangers' images, matched to the best row of a batch: above 1/N, but at the blind value."""
    strangers = opened.population.held_out.x[: len(rows)]
    guess = ReconstructionGuess(rows, strangers, rows[:, 0])
    found = run(scorer, guess, victims, seen=rows)
    assert found["identification"].blind_name == "matched to strangers"
    assert found["identification"].blind > 1 / 360
    assert "leaks" not in {score.verdict() for score in found.values()}


def test_identification_null_is_one_in_n(opened, rows):
    """Guesses that know nothing of their own row: the exact interval holds 1/N."""
    victims = opened.truth.victims(rows, frozenset(), 50, 0)
    held = 0
    for seed in range(40):
        rng = torch.Generator().manual_seed(seed)
        noise = opened.population.auxiliary.x[torch.randint(100, (50,), generator=rng)]
        scorer = Scorer(opened, seed)
        found = run(scorer, ReconstructionGuess(victims, noise), victims)["identification"]
        held += found.low <= found.blind <= found.high
    assert held >= 32


def test_identification_is_fair_to_victims_outside_the_line_up():
    decoys = torch.linspace(0, 1, 5)[:, None]
    truth = torch.tensor([[0.1], [0.9]])
    nowhere = torch.tensor([-1, -1])
    assert images.identified(truth, truth, decoys, nowhere).tolist() == [True, True]
    assert images.identified(truth.flip(0), truth, decoys, nowhere).tolist() == [False, False]


def test_the_nearest_auxiliary_record_is_a_reference(scorer, victims):
    guess = ReconstructionGuess(victims, torch.full((60, 1, 6, 6), 0.5))
    result = scorer.score("reconstruction", "host", guess, victims=victims)
    assert {score.method for score in result.references} == {
        "nearest auxiliary record (uses the truth)"
    }
    assert not any(score.method for score in result.scores)


def test_ssim_from_eleven_pixels_on():
    x = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(images.ssim(x, x), 1.0, atol=1e-6)
    assert images.ssim(x[..., :10], x[..., :10]) is None
    assert images.ssim(x.flatten(1), x.flatten(1)) is None


def test_no_row_seen_is_too_few(scorer):
    none = torch.empty(0, 2, dtype=torch.int64)
    guess = ReconstructionGuess(none, torch.empty(0, 1, 6, 6))
    found = run(scorer, guess, none)
    assert found["identification"].verdict() == "too few"


def test_guesses_that_cannot_be(scorer, victims):
    with pytest.raises(PluginError, match="shape"):
        run(scorer, ReconstructionGuess(victims, torch.zeros(60, 36)), victims)
    twice = victims.clone()
    twice[1] = twice[0]
    with pytest.raises(PluginError, match="twice"):
        run(scorer, ReconstructionGuess(twice, torch.zeros(60, 1, 6, 6)), victims)
    with pytest.raises(PluginError, match="never crossed"):
        run(scorer, ReconstructionGuess(victims + 1000, torch.zeros(60, 1, 6, 6)), victims)


def test_halves_have_a_blind_value_too(opened, rows, victims):
    people = replace(opened.population, auxiliary=None)
    scorer = Scorer(replace(opened, population=people, evaluator=None), 0)
    guess = ReconstructionGuess(victims, opened.truth.samples(victims).x)
    result = scorer.score("reconstruction", "host", guess, victims=victims, seen=rows)
    assert result.scores[1].blind_name == "class mean" and not result.references
