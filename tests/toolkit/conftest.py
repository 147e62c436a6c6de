"""A small pool of labelled records that the stacked and the sequential trainer both learn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from privbench.contract import Net, Recipe, Samples, Spec

TRAIN = "privbench.regimes.training.train"
FEDERATED = "privbench.regimes.fedavg.federated_train"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pool() -> Samples:
    """61 images of 1x3x3 in 4 classes: an odd number, so that batches and shares are uneven."""
    rng = torch.Generator().manual_seed(3)
    return Samples(torch.rand(61, 1, 3, 3, generator=rng), torch.randint(4, (61,), generator=rng))


@pytest.fixture
def recipe() -> Recipe:
    """Two epochs of SGD on a small perceptron."""
    net = Net(Spec("privbench.models.mlp.Mlp", {"widths": (9, 12, 7, 4)}))
    return Recipe(net, Spec("torch.optim.SGD", {"lr": 0.3}), epochs=2, batch=8)
