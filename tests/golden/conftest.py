"""The real data sets, and what the golden tests share, importable by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "attacks")]


@pytest.fixture(scope="session")
def root() -> str:
    """A ``data.root`` with the real sets."""
    if not os.environ.get("PRIVBENCH_DATA"):
        pytest.skip("set PRIVBENCH_DATA to a data.root with the real sets (docs/data-sets.md)")
    return os.environ["PRIVBENCH_DATA"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
