"""``plugins new attack NAME``: a small distribution to start from."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from privbench.errors import StorageError, UsageError
from privbench.plugins import listing

CODE = '''"""{name}: an attack for privbench."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from privbench.contract import Attack, MembershipGuess, View
from privbench.errors import NotApplicable


@dataclass(frozen=True, kw_only=True)
class {kind}(Attack):
    """The surer a model is of a record's label, the likelier it was trained on that record.

    A place to start from: write your attack here, and cite its paper in place of this one.

    Args:
        temperature: divides the logits.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "released_weights")
    source: ClassVar[str] = (
        "Yeom, Giacomelli, Fredrikson, Jha, Privacy Risk in Machine Learning: Analyzing the "
        "Connection to Overfitting, 2018, https://arxiv.org/abs/1709.01604"
    )

    temperature: float = 1.0

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """One score a candidate, higher = more likely a member."""
        candidates, net = view.public.candidates, view.public.net
        if candidates is None or candidates.y is None or net is None:
            raise NotApplicable("{name} needs labelled candidates and the released weights")
        with torch.no_grad():
            logits = net.module()(candidates.x) / self.temperature
        if not bool(logits.isfinite().all()):
            raise NotApplicable("{name} needs finite logits; this model gives others")
        return MembershipGuess(-cross_entropy(logits, candidates.y, reduction="none"))
'''

YAML = """# a membership attack to start from: say here in one line what yours does
_target_: {package}.{name}.{kind}
temperature: 1.0
"""

PROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{dist}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["privbench"]

[project.entry-points."privbench.conf"]
{package} = "{package}.conf"

[tool.setuptools.packages.find]
include = ["{package}*"]

[tool.setuptools.package-data]
"{package}.conf" = ["**/*.yaml"]
"""

TEST = """from privbench.checks import conformance

test_conformance = conformance("{dist}")
"""


VALUES = ("true", "false", "null", "nan", "inf")
"""What a command line takes for a value, not for a name."""

TAKEN = ("Attack", "ClassVar", "MembershipGuess", "NotApplicable", "View")
"""Classes that the module of a new attack imports."""


def scaffold(name: str, folder: Path) -> str:
    """Write a distribution with one attack; returns what to do next.

    Raises:
        UsageError: the name cannot be that of an attack, or something of that name is there already.
        StorageError: the folder cannot be written.
    """
    names = {
        "name": name,
        "package": f"{name}_attack",
        "dist": f"{name}-attack".replace("_", "-"),
        "kind": "".join(part.capitalize() for part in name.split("_")),
    }
    _check_name(name, names["kind"])
    package = Path(names["package"])
    files = {
        Path("pyproject.toml"): PROJECT,
        package / "__init__.py": '"""Config and code of one attack."""\n',
        package / f"{name}.py": CODE,
        package / "conf" / "__init__.py": "",
        package / "conf" / "attack" / f"{name}.yaml": YAML,
        Path("tests") / f"test_{name}.py": TEST,
    }
    root = folder / names["dist"]
    if root.exists():
        raise UsageError(f"'{root}' is there already and stays as it is; choose another name")
    try:
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text.format(**names), encoding="utf-8")
    except OSError as cause:
        raise StorageError(f"cannot write '{root}': {cause}; go to a writable folder") from cause
    return (
        f"wrote {root}\n"
        f"next: pip install -e ./{names['dist']} && privbench attack={name}\n"
        f"then: write your attack into {names['dist']}/{package}/{name}.py, cite its paper there, and "
        f"see whether it keeps the contract: privbench plugins check {name}"
    )


def _check_name(name: str, kind: str) -> None:
    """Refuse names that give a package that cannot be imported, or that block every other command."""
    if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"'{name}' cannot name an attack; expected lower_case, as a Python module, for example "
            "confidence"
        )
    other = f"choose another, for example my_{name}"
    if name in VALUES:
        raise UsageError(
            f"'{name}' cannot name an attack, attack={name} is read as a value; {other}"
        )
    if name == "conf":
        raise UsageError(
            f"'conf' cannot name an attack: its conf.py would lie beside the package conf; {other}"
        )
    if kind in TAKEN:
        raise UsageError(
            f"'{name}' cannot name an attack: its class {kind} would hide that of the contract; {other}"
        )
    choice = listing().get("attack", {}).get(name)
    if choice is not None:
        raise UsageError(
            f"attack={name} is there already, brought by '{choice.provider}', and two of one name are "
            f"refused by every command; {other}"
        )
