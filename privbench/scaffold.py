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

from privbench.contract import Attack, MembershipGuess, View


@dataclass(frozen=True, kw_only=True)
class {kind}(Attack):
    """Says for each candidate how likely it is a member. This one looks at nothing yet.

    Args:
        scale: size of the scores.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates",)
    source: ClassVar[str] = "Authors. Title. Year. https://link"

    scale: float = 1.0

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """One score a candidate."""
        candidates = view.public.candidates
        return MembershipGuess(self.scale * torch.rand(len(candidates), generator=rng))
'''

YAML = """# {name}: say in one line what it does
_target_: {package}.{name}.{kind}
scale: 1.0
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
        f"then: cd {names['dist']} && pytest"
    )
