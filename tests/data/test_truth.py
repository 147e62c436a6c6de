import pytest
import torch

from privbench.contract import Samples
from privbench.data.population import Population
from privbench.data.truth import Truth
from privbench.errors import PluginError, StorageError


@pytest.fixture
def truth():
    """Twenty records in batches of five, two epochs, dealt to two owners."""
    x = torch.arange(20.0)[:, None] / 20
    truth = Truth(Samples(x, torch.arange(20) % 2))
    for step in range(8):
        truth.note(step, torch.arange(20).roll(step // 4).split(5)[step % 4])
    truth.deal(torch.arange(20).split(10))
    return truth


def every_row():
    return torch.cartesian_prod(torch.arange(8), torch.arange(5))


def test_rows_lead_to_samples_and_owners(truth):
    rows = torch.tensor([[0, 0], [4, 0], [3, 4]])
    assert truth.sample_of(rows).tolist() == [0, 19, 19]
    assert truth.owners_of(rows).tolist() == [0, 1, 1]
    assert truth.samples(rows).y.tolist() == [0, 1, 1]


@pytest.mark.parametrize("row", [[9, 0], [0, 5], [0, -1], [-1, 0]])
def test_rows_that_never_were(truth, row):
    with pytest.raises(PluginError, match="never crossed"):
        truth.sample_of(torch.tensor([row]))


def test_victims_are_the_same_samples_for_every_seat(truth):
    everything = truth.victims(every_row(), frozenset(), 6, seed=0)
    assert everything.shape == (6, 2)
    assert bool((everything[:, 0] >= 4).all()), "the last step that was seen"
    samples = set(truth.sample_of(everything).tolist())
    assert len(samples) == 6
    first_epoch = truth.victims(every_row()[:20], frozenset(), 6, seed=0)
    assert set(truth.sample_of(first_epoch).tolist()) == samples
    assert set(truth.sample_of(truth.victims(every_row(), frozenset(), 6, 1)).tolist()) != samples


def test_own_records_are_no_victims(truth):
    rows = truth.victims(every_row(), frozenset({0}), 20, seed=0)
    assert len(rows) == 10
    assert set(truth.owners_of(rows).tolist()) == {1}


def test_no_rows_no_victims(truth):
    assert truth.victims(torch.empty(0, 2, dtype=torch.int64), frozenset(), 3, 0).shape == (0, 2)


def test_saved_truth_comes_back(truth, tmp_path):
    truth.save(tmp_path / "truth")
    other = Truth(truth.train)
    other.load(tmp_path / "truth")
    assert torch.equal(other.sample_of(every_row()), truth.sample_of(every_row()))
    assert torch.equal(other.owners, truth.owners)


def test_damaged_truth_is_named(truth, tmp_path):
    truth.save(tmp_path / "truth")
    whole = (tmp_path / "truth").read_bytes()
    (tmp_path / "truth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match="no whole truth"):
        Truth(truth.train).load(tmp_path / "truth")
    truth.save(tmp_path / "truth")
    with pytest.raises(StorageError, match="expected 3"):
        Truth(truth.train[:3]).load(tmp_path / "truth")


def test_population_tells_the_truth(truth):
    fresh = Truth(truth.train)
    people = Population(truth.train, truth.train, None, 2, fresh)
    people.note(0, torch.tensor([3, 1]))
    shares = people.share(3, torch.Generator().manual_seed(0))
    assert fresh.sample_of(torch.tensor([[0, 1]])).tolist() == [1]
    assert all(bool((fresh.owners[share] == k).all()) for k, share in enumerate(shares))
    with pytest.raises(PluginError, match="expected 0 to 19"):
        people.note(1, torch.tensor([20]))


def test_pairs_are_of_two_epochs_and_half_of_them_of_one_sample(truth):
    found = truth.pairs(every_row(), frozenset({1}), 99, 0, steps_per_epoch=4).reshape(-1, 2, 2)
    assert (found[:, 0, 0] < 4).all() and (found[:, 1, 0] >= 4).all()
    first, second = truth.sample_of(found[:, 0]), truth.sample_of(found[:, 1])
    assert first.unique().tolist() == list(range(10))  # the other owner's
    assert 2 <= int((first == second).sum()) <= 8
    assert torch.equal(truth.train.y[first], truth.train.y[second])
    again = truth.pairs(every_row(), frozenset(), 99, 0, steps_per_epoch=4).reshape(-1, 2, 2)
    coins = {
        int(truth.sample_of(pair[:1])): len(truth.sample_of(pair).unique()) == 1 for pair in again
    }
    for pair, same in zip(found, first == second, strict=True):
        assert coins[int(truth.sample_of(pair[:1]))] == bool(same)  # the same coins for every seat


def test_no_pair_within_one_epoch(truth):
    early = every_row()[every_row()[:, 0] < 4]
    assert truth.pairs(early, frozenset(), 99, 0, steps_per_epoch=4).shape == (0, 2)
    assert truth.pairs(early[:0], frozenset(), 99, 0, steps_per_epoch=4).shape == (0, 2)
