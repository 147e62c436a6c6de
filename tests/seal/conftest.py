"""Attacks that try every lock, in a module that only the tests put on the import path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from privbench.contract import Net, Samples, Seat, Spec, Topology, View
from privbench.contract.view import Public
from privbench.seal import Seal


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugins"))


@pytest.fixture(params=["process", "inline"])
def seal(request: pytest.FixtureRequest) -> Iterator[Seal]:
    with Seal(request.param) as one:
        yield one


@pytest.fixture
def sealed() -> Iterator[Seal]:
    with Seal("process") as one:
        yield one


@pytest.fixture
def view() -> View:
    rng = torch.Generator().manual_seed(5)
    net = Net(Spec("torch.nn.Linear", {"in_features": 4, "out_features": 2}))
    return View(
        seat=Seat("released", "outsider", grants=frozenset({"candidates"})),
        topology=Topology("centralized", ("trainer",), ("trainer",), net, 10, 5),
        victims=torch.empty(0, 2, dtype=torch.int64),
        public=Public(candidates=Samples(torch.rand(50, 4, generator=rng), torch.arange(50) % 2)),
    )
