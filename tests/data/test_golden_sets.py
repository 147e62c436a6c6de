"""The real sets, read from the data.root that PRIVBENCH_DATA names."""

from pathlib import Path

import numpy as np
import pytest
import torch

from privbench.data.adult import Adult
from privbench.data.cifar10 import Cifar10
from privbench.data.location30 import Location30
from privbench.data.mnist import EmnistLetters, FashionMnist, Mnist
from privbench.data.openml import parts_of
from privbench.data.orl import Orl
from privbench.data.splits import open_population

pytestmark = pytest.mark.golden

SIZES = {  # shape of the inputs; records of the rarest and the commonest class; of either part
    Mnist: ((1, 28, 28), (6313, 7877), [60_000, 10_000]),
    FashionMnist: ((1, 28, 28), (7000, 7000), [60_000, 10_000]),
    Cifar10: ((3, 32, 32), (6000, 6000), [50_000, 10_000]),
    Adult: ((108,), (11_687, 37_155), [32_561, 16_281]),
    Orl: ((1, 112, 92), (10, 10), None),
    Location30: ((446,), (97, 308), None),
}


@pytest.mark.parametrize("kind", SIZES)
def test_counts_classes_shapes_and_values(kind, root):
    shape, (rarest, commonest), parts = SIZES[kind]
    records = kind(root=root).load()
    counts = records.samples.y.bincount()
    assert tuple(records.samples.x.shape[1:]) == shape
    assert (int(counts.min()), int(counts.max())) == (rarest, commonest)
    assert (None if parts is None else records.parts.bincount().tolist()) == parts
    low, high = records.samples.x.aminmax()
    assert low == 0 and (high == 1 or kind is Orl)


def test_letters(root):
    records = EmnistLetters(root=root).load()
    counts = records.samples.y.bincount()
    assert len(counts) == 26 and tuple(records.samples.x.shape[1:]) == (1, 28, 28)
    tested = records.samples.y if records.parts is None else records.samples.y[records.parts == 1]
    assert (tested.bincount() == 800).all()


@pytest.mark.parametrize("kind", [Mnist, FashionMnist, Cifar10, Adult])
def test_the_hashes_that_downloads_are_checked_against(kind, root):
    folder = next(p for name in kind.folders if (p := Path(root) / name).is_dir())
    found = kind.read(folder)
    tests = kind.listed.tests
    for order in (np.arange(len(found.y)), np.roll(np.arange(len(found.y)), tests)):
        parts = parts_of(kind.name, kind.listed, found.x[order], found.y[order])
        assert np.array_equal(parts, found.parts[order])


@pytest.mark.parametrize("kind", [*SIZES, EmnistLetters])
def test_each_can_be_split(kind, root):
    count = None if kind is Orl else 1200
    opened = open_population(kind(root=root, records=count), 0)
    assert sum(opened.sizes.values()) > 390
    assert opened.population.classes == len(opened.candidates.y.unique())


def test_letters_look_like_digits_of_mnist(root):
    """An upright letter 'l' and digit '1' are tall; lying ones would be wide."""
    letters, digits = (k(root=root, records=3000).load().samples for k in (EmnistLetters, Mnist))
    for samples, label in ((letters, 8), (letters, 11), (digits, 1)):
        x = samples.x[samples.y == label].mean(dim=0)[0]
        down, across = (x.sum(dim=d) / x.sum() for d in (1, 0))
        place = torch.arange(28.0)
        spread = [(w * (place - (w * place).sum()) ** 2).sum() for w in (down, across)]
        assert spread[0] > 1.5 * spread[1]
