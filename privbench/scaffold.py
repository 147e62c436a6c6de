"""``plugins new attack NAME``: a small distribution to start from."""

from __future__ import annotations

import keyword
from pathlib import Path

from privbench.errors import StorageError, UsageError

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
    """A record with a small loss was trained on: a place to start from.

    Args:
        temperature: divides the logits.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "released_weights")
    source: ClassVar[str] = "authors, title, year, link: fill this in"

    temperature: float = 1.0

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """One score a candidate, higher = more likely a member."""
        candidates, net = view.public.candidates, view.public.net
        if candidates is None or candidates.y is None or net is None:
            raise NotApplicable("{name} needs labelled candidates and the released weights")
        with torch.no_grad():
            logits = net.module()(candidates.x) / self.temperature
        return MembershipGuess(-cross_entropy(logits, candidates.y, reduction="none"))
'''

YAML = """# {name}: say in one line what it does
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


def scaffold(name: str, folder: Path) -> str:
    """Write a distribution with one attack; returns what to do next.

    Raises:
        UsageError: the name is no Python name, or something of that name is there already.
        StorageError: the folder cannot be written.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise UsageError(f"'{name}' cannot name an attack; expected lower_case, as a Python module")
    names = {
        "name": name,
        "package": f"{name}_attack",
        "dist": f"{name}-attack".replace("_", "-"),
        "kind": "".join(part.capitalize() for part in name.split("_")),
    }
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
        f"next: pip install -e {names['dist']} && privbench attack={name}\n"
        f"then: cite your source, cd {names['dist']} && pytest"
    )
