"""Small real data and a wire that somebody listens to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from privbench.contract import Net, Samples, Spec
from privbench.data.population import Population
from privbench.data.truth import Truth
from privbench.regimes.base import Regime, Trained
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Samples:
    """300 digits in a fixed order."""
    bundle = load_digits()
    order = torch.randperm(len(bundle.target), generator=torch.Generator().manual_seed(0))[:300]
    images = torch.tensor(bundle.images / 16, dtype=torch.float32)[:, None]
    return Samples(images[order], torch.tensor(bundle.target)[order])


@pytest.fixture
def net() -> Net:
    """A small network without weights."""
    return Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 24, 16, 10]}))


@pytest.fixture
def population(digits: Samples) -> Population:
    """120 members, 90 non-members, 90 auxiliary records."""
    members = digits[:120]
    return Population(members, digits[120:210], digits[210:], 10, Truth(members))


Recorded = tuple[Trained, Transcript, Wire]


@pytest.fixture
def record(population: Population, net: Net, tmp_path: Path) -> Callable[[Regime], Recorded]:
    """Train over a recorded wire, with seed 5."""

    def run(regime: Regime) -> Recorded:
        folder = tmp_path / regime.name
        folder.mkdir()
        tap = Recorder(folder, Capture())
        wire = Wire((tap,))
        trained = regime.train(net, population, wire, torch.Generator().manual_seed(5), "cpu")
        tap.close()
        return trained, Transcript(folder), wire

    return run
