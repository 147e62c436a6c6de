"""A workshop that shares its targets with the kit, and plug-ins that break the rules."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from privbench.checks import Workshop


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.getbasetemp() / "privbench-checks")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """In a module that only the tests put on the import path."""
    from importlib import import_module

    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugins"))
    return import_module("broken")
