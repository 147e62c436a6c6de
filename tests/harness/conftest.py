"""Tiny targets, trained once for all tests of the harness, and ways to look at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from sklearn.datasets import load_digits

from privbench.compose.launch import one
from privbench.compose.plans import Given
from privbench.compose.words import Words
from privbench.contract import Net, Seat, Spec, View
from privbench.data.arrays import arrays
from privbench.data.source import DataSource
from privbench.data.splits import Opened, open_population
from privbench.experiment import cut
from privbench.plan import Plan
from privbench.store import Store
from privbench.targets import Opening, target_of

RECORDS = 270  # digits: 90 members, 90 non-members, 60 auxiliary, 30 for the evaluator
NETWORK = Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 32, 16, 16, 10]}))
QUICK = ("victims=20", "device=cpu", "seal=inline", "regime.epochs=2")
FEDERATED = ("regime=fedavg", "regime.clients=3", "regime.rounds=3")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> DataSource:
    """Digits in a fixed order."""
    bundle = load_digits()
    order = torch.randperm(len(bundle.target), generator=torch.Generator().manual_seed(0))
    chosen = order[:RECORDS]
    images = torch.tensor(bundle.images / 16, dtype=torch.float32)[:, None]
    return arrays(images[chosen], torch.tensor(bundle.target)[chosen])


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which targets are trained once."""
    return tmp_path_factory.mktemp("harness")


@pytest.fixture(scope="session")
def plan(digits: DataSource, shared: Path) -> Callable[..., Plan]:
    """The plan of some words, on tiny data; where no folder is named, in the shared one."""

    @cache
    def make(*words: str) -> Plan:
        settled = (*QUICK, f"out={shared}", *words)
        if "regime=fedavg" in words:
            settled = tuple(word for word in settled if word != "regime.epochs=2")
        return one(Words(tuple(_settable(settled))), Given(model=NETWORK, data=digits)).plan

    return make


def _settable(words: tuple[str, ...]) -> list[str]:
    """A setting of an object may be absent from its yaml."""
    return [f"++{w}" if "." in w.partition("=")[0] else w for w in words]


@dataclass(frozen=True, eq=False)
class Rig:
    """A trained target and the seats at it."""

    plan: Plan
    opened: Opened
    target: Opening
    seats: tuple[Seat, ...]

    def views(self, **changed: object) -> list[View]:
        """One view a seat; ``changed`` fields of the plan differ."""
        return cut(replace(self.plan, **changed), self.opened, self.target, self.seats)


@pytest.fixture(scope="session")
def rig(plan: Callable[..., Plan]) -> Callable[..., Rig]:
    """A target for some words, every seat of the threat at it, whatever the attack lacks."""

    @cache
    def make(*words: str) -> Rig:
        made = plan(*words)
        opened = open_population(made.data, made.seed)
        target = target_of(made, opened, Store(made.out))
        topology = replace(target.topology, encrypted=made.encrypted)
        return Rig(made, opened, target, made.threat.seats(topology))

    return make


CROWD = ("regime=slicenet", "crowd.devices=4", "regime.granularity=4")


@pytest.fixture(scope="session")
def crowd(rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """A crowd of four devices under some threat, attacked by ridge decoders unless said otherwise."""

    def make(*words: str) -> Rig:
        attack = () if any(w.startswith("attack=") for w in words) else ("attack=ridge_decoder",)
        return rig(*CROWD, *attack, *words)

    return make


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Plug-ins in a module that only the tests put on the import path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugins"))
    return import_module("strangers")
