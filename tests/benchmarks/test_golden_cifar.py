"""CIFAR-10 by one machine and by a crowd of fifty phones: as good, and the same."""

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.golden, pytest.mark.timeout(4 * 3600)]


@pytest.fixture(scope="module")
def root():
    """A ``data.root`` with the real set."""
    if not os.environ.get("PRIVBENCH_DATA"):
        pytest.skip("set PRIVBENCH_DATA to a data.root with cifar10/ (docs/data-sets.md)")
    return os.environ["PRIVBENCH_DATA"]


@pytest.fixture
def cifar(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("cifar")
    sys.modules.pop("cifar", None)


def test_the_first_twenty_steps_give_the_same_weights(cifar, root):
    torch.set_num_threads(1)
    assert cifar.first_steps(root, 0) <= 1e-4


def test_both_reach_75_percent_and_differ_no_more_than_seeds_do(cifar, root):
    torch.set_num_threads(1)
    rows = [row for seed in range(3) for row in cifar.measure(root, seed)]
    found = {
        name: torch.tensor([row.accuracy for row in rows if row.regime == name])
        for name in ("centralized", "slicenet")
    }
    assert all(float(each.min()) >= 0.75 for each in found.values())
    difference = (found["slicenet"] - found["centralized"]).abs()
    assert float(difference.max()) <= float(found["centralized"].std())
