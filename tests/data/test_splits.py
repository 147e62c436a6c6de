from dataclasses import replace

import numpy as np
import pytest
import torch

from privbench.data.arrays import Arrays, arrays, members
from privbench.data.digits import Digits
from privbench.data.source import digest
from privbench.data.splits import open_population
from privbench.errors import DataError


def toy(n=90, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, 4)), np.arange(n) % classes


def keys(samples):
    return {row.numpy().tobytes() for row in samples.x}


def test_digits_are_split_into_disjoint_stratified_parts():
    opened = open_population(Digits(), 0)
    people = opened.population
    parts = (people.train, people.held_out, people.auxiliary, opened.evaluator)
    assert [len(part) for part in parts] == [600, 600, 400, 197]
    assert len(set().union(*(keys(part) for part in parts))) == 1797
    for part in parts:
        counts = torch.bincount(part.y, minlength=10)
        assert int(counts.max() - counts.min()) <= 4
    assert people.train.x.shape[1:] == (1, 8, 8)
    assert people.train.x.dtype == torch.float32
    assert 0 <= float(people.train.x.min()) and float(people.train.x.max()) == 1.0


def test_the_seed_alone_decides():
    one, same, other = (open_population(Digits(), seed) for seed in (3, 3, 4))
    assert torch.equal(one.candidates.x, same.candidates.x)
    assert torch.equal(one.truth.places, same.truth.places)
    assert keys(one.population.train) != keys(other.population.train)
    assert one.digest == other.digest


def test_candidates_are_shuffled_and_their_truth_fits():
    opened = open_population(Digits(), 1)
    member, places = opened.truth.member, opened.truth.places
    assert int(member.sum()) == 600
    assert torch.equal(opened.candidates.x[member], opened.population.train.x[places[member]])
    assert not keys(opened.candidates[~member]) & keys(opened.population.train)
    assert 200 < int(member[:600].sum()) < 400


def test_halves_leave_no_auxiliary():
    opened = open_population(Digits(split="halves"), 0)
    assert len(opened.population.train) == len(opened.population.held_out) == 898
    assert opened.population.auxiliary is None and opened.evaluator is None


def test_given_parts_are_kept_and_a_members_copy_stays_a_member():
    x, y = toy(40, 2)
    x[30] = x[0]  # a non-member that is a copy of a member
    parts = np.repeat([0, 1, 2, 3], 10)
    parts[30] = 1
    opened = open_population(arrays(x, y, parts), 0)
    assert len(opened.population.train) == 10
    assert len(opened.population.held_out) == 10
    assert keys(opened.population.train) & {np.float32(x[0]).tobytes()}
    assert "1 exact duplicates" in opened.notices[0]
    named = np.array(["member", "non_member", "auxiliary", "evaluator"])[parts]
    again = open_population(arrays(x, y, named), 0)
    assert torch.equal(again.candidates.x, opened.candidates.x)


def test_official_split_measures_on_the_test_set_and_asks_no_membership():
    x, y = toy(40, 2)
    data = arrays(x, y, np.arange(40) // 30)
    opened = open_population(replace(data, split="official"), 0)
    assert opened.candidates is None and opened.truth.member is None
    assert keys(opened.population.auxiliary) == keys(opened.population.held_out)


def test_exact_duplicates_never_straddle_splits():
    x, y = toy(90, 3)
    x[45:48] = x[0:3]
    opened = open_population(arrays(x, y), 0)
    people = opened.population
    parts = (people.train, people.held_out, people.auxiliary, opened.evaluator)
    assert sum(len(part) for part in parts) == 87
    assert len(set().union(*(keys(part) for part in parts))) == 87
    assert "3 exact duplicates" in opened.notices[0]


def test_near_duplicates_are_reported():
    x, y = toy(90, 3)
    x = x * 0.5
    x[45:90] = x[:45] + 0.001
    y[45:] = y[:45]
    opened = open_population(arrays(x, y), 0)
    assert "near duplicates: 0 of" not in opened.notices[-1]


def test_integers_are_scaled_and_files_read(tmp_path):
    x, y = toy(60, 2)
    whole = (x * 255).astype(np.uint8)
    file = tmp_path / "own.npz"
    np.savez(file, x=whole, y=y)
    records = Arrays(path=str(file)).load()
    np.testing.assert_allclose(records.samples.x.numpy(), whole / 255, rtol=1e-6)
    assert digest(records) == digest(arrays(whole, y).load())
    assert digest(records) != digest(arrays(whole, 1 - y).load())


def test_members_of_a_model_trained_elsewhere():
    x, y = toy(40, 2)
    opened = open_population(members((x[:20], y[:20]), (torch.tensor(x[20:]), y[20:])), 0)
    assert keys(opened.population.train) == {np.float32(row).tobytes() for row in x[:20]}
    with pytest.raises(DataError, match="one shape"):
        members((x, y), (x[:, :3], y))


BAD = {
    "nan": (lambda x, y: (np.where(x > 0.9, np.nan, x), y), "NaN"),
    "range": (lambda x, y: (x * 3, y), r"expected real numbers in \[0, 1\]"),
    "one class": (lambda x, y: (x, y * 0), "at least 2 classes"),
    "gap": (lambda x, y: (x, y * 2), "return_inverse"),
    "lengths": (lambda x, y: (x[:-1], y), "expected x of shape"),
    "one-hot": (lambda x, y: (x, np.eye(3)[y]), "argmax"),
    "flat": (lambda x, y: (x[:, 0], y), "reshape"),
    "real labels": (lambda x, y: (x, y + 0.5), "astype"),
    "objects": (lambda x, y: (np.array([{}] * len(x)), y), "objects"),
    "empty": (lambda x, y: (x[:0], y[:0]), "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arrays_are_refused_with_a_remedy(name):
    spoil, words = BAD[name]
    with pytest.raises(DataError, match=words):
        arrays(*spoil(*toy()))


def test_too_few_records_name_the_class_and_the_way_out():
    x, y = toy(20, 4)
    with pytest.raises(DataError, match=r"class \d has 5: add records; type data.split=halves"):
        open_population(arrays(x, y), 0)
    assert len(open_population(arrays(x, y, "halves"), 0).population.train) == 10


@pytest.mark.parametrize("split", ["official", "given", "quarters"])
def test_splits_that_the_data_do_not_have(split):
    with pytest.raises(DataError, match=r"data\.split"):
        open_population(Digits(split=split), 0)


def test_bad_files(tmp_path):
    with pytest.raises(DataError, match=r"data\.path=FILE\.npz"):
        Arrays(path=str(tmp_path / "none.npz")).load()
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match="cannot read"):
        Arrays(path=str(broken)).load()
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, x=np.array([{}], dtype=object), y=np.arange(1))
    with pytest.raises(DataError, match="cannot read"):
        Arrays(path=str(pickled)).load()
    stranger = tmp_path / "stranger.npz"
    np.savez(stranger, x=np.zeros((2, 2)), labels=np.arange(2))
    with pytest.raises(DataError, match="keys labels, x"):
        Arrays(path=str(stranger)).load()
