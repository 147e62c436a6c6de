"""The pins are whole: every dependency has one, inside its range."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOME = Path(__file__).resolve().parents[2]


def _pins() -> dict[str, str]:
    lines = (HOME / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_pinned_inside_its_range() -> None:
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    pins = _pins()
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        if requirement.name == "privbench":
            continue
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_no_pin_is_bound_to_one_build() -> None:
    assert not [version for version in _pins().values() if "+" in version]
