"""A small split population whose truth knows two epochs of traffic, dealt to four owners."""

import numpy as np
import pytest
import torch

from privbench.contract import child_rng
from privbench.data.arrays import arrays
from privbench.data.splits import open_population
from privbench.scoring.scorer import Scorer

BATCH = 10


@pytest.fixture(scope="session")
def opened():
    """180 members and 180 non-members: blurred class patterns of 6 by 6 pixels, three classes."""
    rng = np.random.default_rng(0)
    y = np.arange(540) % 3
    patterns = rng.random((3, 1, 6, 6))
    x = np.clip(0.6 * patterns[y] + 0.4 * rng.random((540, 1, 6, 6)), 0, 1)
    opened = open_population(arrays(x, y), 0)
    people = opened.population
    seed = torch.Generator().manual_seed(0)
    people.share(4, child_rng(seed, "shares"))
    for epoch in range(2):
        order = torch.randperm(len(people.train), generator=child_rng(seed, epoch))
        for i, batch in enumerate(order.split(BATCH)):
            people.note(epoch * 18 + i, batch)
    return opened


@pytest.fixture(scope="session")
def rows():
    """Every row of the last epoch."""
    return torch.cartesian_prod(torch.arange(18, 36), torch.arange(BATCH))


@pytest.fixture(scope="session")
def scorer(opened):
    return Scorer(opened, 0)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)
