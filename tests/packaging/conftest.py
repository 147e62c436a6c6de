"""Distributions made on the fly, found the way installed ones are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Install = Callable[[str, Mapping[str, str]], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution on the path: its name, and its config files by path."""

    def _install(name: str, files: Mapping[str, str]) -> Path:
        root = tmp_path / name
        package = name.replace("-", "_")
        conf = root / package / "conf"
        conf.mkdir(parents=True)
        (root / package / "__init__.py").write_text("raise ImportError('imported by a listing')\n")
        (conf / "__init__.py").write_text("")
        for path, text in files.items():
            (conf / path).parent.mkdir(parents=True, exist_ok=True)
            (conf / path).write_text(text)
        info = root / f"{package}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[privbench.conf]\n{name} = {package}.conf\n")
        monkeypatch.syspath_prepend(str(root))
        return root

    return _install
