import random
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import privbench
from privbench.compose.building import build
from privbench.data.splits import open_population
from privbench.data.torch_dataset import TorchDataset
from privbench.errors import DataError
from privbench.plan import canonical

MODULE = """
import torch

class Grid(torch.utils.data.Dataset):
    def __init__(self, n=90, first=0):
        self.n, self.first = n, first

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError(i)
        x = torch.rand(64, generator=torch.Generator().manual_seed(self.first + i))
        return x.reshape(1, 8, 8), i % 3
"""


@pytest.fixture
def mydata(tmp_path, monkeypatch):
    """A module of the user's."""
    (tmp_path / "mydata_of_a_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "mydata_of_a_user.Grid"
    sys.modules.pop("mydata_of_a_user", None)


class Listed(Dataset):
    """Records of a list, each made by a function when asked for."""

    def __init__(self, make, n=12):
        self.make, self.n = make, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.make(i)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.full((2,), i / 12), i % 2) for i in range(12)])


def test_a_run_on_a_users_data_set(mydata, tmp_path):
    report = privbench.run(
        "data=torch_dataset",
        f"data.dataset._target_={mydata}",
        "data.dataset.n=120",
        "data.records=90",
        "model.widths=[64,8,3]",
        "regime=centralized",
        "regime.epochs=1",
        "seal=inline",
        "report.images=false",
        f"out={tmp_path}",
    )
    assert report.status == "ok" and report.names.data == "torch_dataset"
    assert sum(report.run.splits.values()) == 90


def test_a_second_one_makes_an_official_split(mydata):
    settings = {
        "_target_": "privbench.data.torch_dataset.TorchDataset",
        "dataset": {"_target_": mydata},
        "test": {"_target_": mydata, "n": 30, "first": 90},
        "split": "official",
    }
    source = build(settings, "data")
    assert open_population(source, 0).sizes == {"members": 90, "non-members": 30, "auxiliary": 30}
    assert "Grid" not in str(canonical(source)), "the records count, not the object"


@pytest.mark.parametrize(
    "x",
    [
        lambda i: torch.full((3, 2), i / 12),
        lambda i: np.full((3, 2), i * 20, np.uint8),
        lambda i: Image.new("L", (2, 3), i * 20),
        lambda i: Image.new("RGB", (2, 3), (i * 20, 0, 0)),
    ],
)
@pytest.mark.parametrize(
    "y", [lambda i: i % 2, lambda i: torch.tensor(i % 2), lambda i: np.int32(i % 2)]
)
def test_inputs_and_labels_of_many_kinds(x, y):
    samples = TorchDataset(dataset=Listed(lambda i: (x(i), y(i)))).load().samples
    assert samples.x.shape[0] == 12 and samples.x.shape[-2:] == (3, 2)
    assert float(samples.x.max()) == pytest.approx(11 / 12, abs=0.06)
    assert samples.y.tolist() == [0, 1] * 6


def test_streams_and_ready_made_ones():
    assert TorchDataset(dataset=Stream()).load().samples.y.tolist() == [0, 1] * 6
    tensors = TensorDataset(torch.rand(12, 4), torch.arange(12) % 2)
    assert torch.equal(TorchDataset(dataset=tensors).load().samples.x, tensors.tensors[0])


def fail(i):
    raise KeyError(f"label of {i}")


BAD = {
    "one value": (lambda i: torch.rand(2), "record 0 .* is Tensor; expected a pair"),
    "three values": (lambda i: (0.5, 1, 2), "is 3 values; expected a pair"),
    "words": (lambda i: (torch.ones(2), "cat"), "has label 'cat'; expected one whole number"),
    "real label": (lambda i: (torch.ones(2), 0.5), "has label 0.5"),
    "normalised": (lambda i: (torch.full((2,), i - 6.0), i % 2), "take Normalize out"),
    "sizes": (lambda i: (torch.ones(2 + i // 9), i % 2), "record 9 .* shape .3,., record 0"),
    "error": (fail, "record 0 of .* raised KeyError: 'label of 0'"),
    "chance": (lambda i: (torch.rand(2), i % 2), "another one when asked for again"),
    "more chance": (lambda i: (torch.full((2,), random.random()), i % 2), "another one when asked"),
    "labels": (lambda i: (torch.full((2,), i / 12), i % 2 + 3), "expected labels 0 to 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records(name):
    make, words = BAD[name]
    with pytest.raises(DataError, match=words):
        TorchDataset(dataset=Listed(make)).load()


def test_what_is_no_data_set():
    with pytest.raises(DataError, match=r"data\.dataset is not set.*type data\.dataset\._target_="):
        TorchDataset().load()
    with pytest.raises(DataError, match=r"data.dataset is int"):
        TorchDataset(dataset=3).load()
    with pytest.raises(DataError, match="is empty"):
        TorchDataset(dataset=Listed(fail, n=0)).load()


def test_the_global_generator_is_left_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    TorchDataset(dataset=Stream()).load()
    assert torch.equal(torch.random.get_rng_state(), before)
