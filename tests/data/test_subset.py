import numpy as np
import pytest
import torch

from privbench.data.arrays import Arrays
from privbench.data.digits import Digits
from privbench.data.mnist import Mnist
from privbench.data.source import digest
from privbench.data.splits import open_population
from privbench.data.subset import chosen
from privbench.errors import DataError


def test_classes_and_parts_keep_their_shares():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    parts = np.tile([0, 0, 0, 1], 250)
    found = chosen(labels, parts, 100)
    assert len(np.unique(found)) == 100 and (np.diff(found) > 0).all()
    counts = np.bincount(labels[found] * 2 + parts[found])
    assert np.abs(counts - [45, 15, 22.5, 7.5, 7.5, 2.5]).max() <= 1


def test_a_larger_subset_adds_to_a_smaller_one():
    labels = np.arange(500) % 7
    small, large = (chosen(labels, None, count) for count in (60, 200))
    assert set(small) <= set(large)
    assert np.array_equal(chosen(labels, None, None), np.arange(500))
    assert np.array_equal(chosen(labels, None, 500), np.arange(500))


@pytest.mark.parametrize("count", [0, 1, 21, -3])
def test_counts_that_cannot_be(count):
    with pytest.raises(DataError, match=f"data.records={count}; expected 2 to 20"):
        chosen(np.arange(20) % 2, None, count)


def test_a_class_that_would_be_lost():
    with pytest.raises(DataError, match=r"data\.records=5 leaves class \d without a record"):
        chosen(np.arange(100) % 10, None, 5)


def test_the_same_records_whatever_the_seed():
    pools = []
    for seed in (0, 1):
        opened = open_population(Digits(records=300), seed)
        people = opened.population
        parts = (people.train, people.held_out, people.auxiliary, opened.evaluator)
        assert sum(map(len, parts)) == 300
        pools.append({row.numpy().tobytes() for part in parts for row in part.x})
    assert pools[0] == pools[1]


def test_every_source_takes_a_number(mnist, tmp_path):
    source = Mnist(root=str(mnist), records=30, split="official")
    assert open_population(source, 0).sizes["members"] == 20
    x, y = np.arange(80, dtype=np.uint8).reshape(40, 2), np.arange(40) % 2
    np.savez(tmp_path / "own.npz", x=x, y=y)
    whole = Arrays(path=str(tmp_path / "own.npz")).load()
    some = Arrays(path=str(tmp_path / "own.npz"), records=10).load()
    assert torch.isin(some.samples.x, whole.samples.x).all(), "scaled as the whole is"
    assert len(some.samples) == 10 and digest(some) != digest(whole)
