"""Fetching, with OpenML played by a function."""

import http.client
import urllib.error
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from privbench.data import filed, openml
from privbench.data.adult import Adult
from privbench.data.cifar10 import Cifar10
from privbench.data.mnist import FashionMnist, Mnist
from privbench.data.openml import content
from privbench.data.source import digest
from privbench.errors import DataError

from .conftest import PEOPLE, TESTED, images, labels


def answer(monkeypatch, inputs, target):
    """What OpenML sends from now on."""

    def fetch(**asked):
        assert asked["data_id"] in (554, 40996, 40927, 1590)
        return SimpleNamespace(data=pd.DataFrame(inputs), target=pd.Series(target))

    filed._downloaded.cache_clear()
    monkeypatch.setattr(openml, "fetch_openml", fetch)


def expect(monkeypatch, kind, x, y, tests):
    """Make the small set the known one; its last records are the test set."""
    listed = replace(
        kind.listed, whole=content(x, y), test=content(x[-tests:], y[-tests:]), tests=tests
    )
    monkeypatch.setattr(kind, "listed", listed)


@pytest.mark.parametrize(
    ("kind", "shape"), [(Mnist, (1, 28, 28)), (FashionMnist, (1, 28, 28)), (Cifar10, (3, 32, 32))]
)
def test_the_test_set_is_found_wherever_it_stands(monkeypatch, kind, shape, tmp_path):
    x, y = images(40, shape), labels(40, 10).astype(np.int64)
    expect(monkeypatch, kind, x, y, 10)
    for order, parts in (
        (np.arange(40), [0] * 30 + [1] * 10),
        (np.roll(np.arange(40), 10), [1] * 10 + [0] * 30),
        (np.random.default_rng(0).permutation(40), None),
    ):
        answer(monkeypatch, x[order].reshape(40, -1).astype(np.int64), y[order].astype(str))
        source = kind(download=True, root=str(tmp_path))
        found = source.load()
        assert (None if found.parts is None else found.parts.tolist()) == parts
        np.testing.assert_array_equal((found.samples.x * 255).round().numpy(), x[order])


def test_other_records_than_the_known_ones_are_refused(monkeypatch):
    answer(monkeypatch, images(40, (784,)), labels(40, 10).astype(str))
    with pytest.raises(
        DataError, match=r"mnist_784 .* is not data=mnist: 40 records of hash .*data\.root"
    ):
        Mnist(download=True).load()
    answer(monkeypatch, images(40, (783,)), labels(40, 10).astype(str))
    with pytest.raises(DataError, match=r"is not data=mnist \(cannot reshape"):
        Mnist(download=True).load()


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no network"),
        http.client.IncompleteRead(b""),
        ValueError("md5 checksum"),
        KeyError("data_set_description"),
    ],
)
def test_what_does_not_come(monkeypatch, error):
    def fetch(**asked):
        raise error

    monkeypatch.setattr(openml, "fetch_openml", fetch)
    with pytest.raises(DataError, match=r"cannot fetch CIFAR_10 .*type data\.root=FOLDER"):
        Cifar10(download=True).load()


def test_files_that_are_there_are_not_fetched(monkeypatch, mnist):
    monkeypatch.setattr(openml, "fetch_openml", None)
    assert len(Mnist(root=str(mnist), download=True).load().samples) == 60


def test_people_from_openml_are_those_of_the_files(monkeypatch, tmp_path):
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "adult.data").write_text(PEOPLE)
    (tmp_path / "adult" / "adult.test").write_text(TESTED)
    people = Adult.read(tmp_path / "adult")
    expect(monkeypatch, Adult, people.x, people.y, 2)
    lines = [*PEOPLE.splitlines(), *TESTED.splitlines()[1:3]]
    fields = [[f.rstrip(".") for f in line.split(", ")] for line in lines]
    frame = pd.DataFrame(fields).replace("?", np.nan)
    for column in (0, 2, 4, 10, 11, 12):
        frame[column] = frame[column].astype(float)
    answer(monkeypatch, frame.drop(columns=14), frame[14].astype("category"))
    assert digest(Adult(download=True).load()) == digest(Adult(root=str(tmp_path)).load())
