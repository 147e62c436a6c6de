"""What every worker does before its tests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

PACKAGES = ("attacks", "defenses", "privbench")


class _Finder(MetaPathFinder):
    """Finds our modules as ever; they are held to the shapes in their signatures (``shapes.py``)."""

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in PACKAGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        import shapes  # imports torch, which xdist's own process can do without: it runs no test

        shapes.check(module)


sys.path.append(str(Path(__file__).parent))
if os.environ.get("PRIVBENCH_SHAPES") != "off":
    early = sorted(name for name in sys.modules if name.partition(".")[0] in PACKAGES)
    if early:
        raise RuntimeError(f"imported before shapes could be checked: {', '.join(early)}")
    sys.meta_path.insert(0, _Finder())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collection loads stays to the end: a search for garbage need not walk it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """At its end Python frees what it may collect; extension modules report the rest as leaks."""
    gc.unfreeze()
