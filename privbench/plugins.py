"""What is there to choose from: config packages that distributions announce by an entry point.

A distribution brings one entry point of group ``privbench.conf``; its value is an importable
package of yaml files, one folder a group, one file a choice. Ours is announced in the same way.
Nothing here imports a plug-in, torch, or (but for ``register``) Hydra.
"""

from __future__ import annotations

import ast
import difflib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

from privbench.errors import NameClash, PluginError, UnknownName, UsageError

GROUP = "privbench.conf"
OURS = ("attacks", "defenses")

Listing = Mapping[str, Mapping[str, "Choice"]]
"""Choices by group (``attack``, ``row/compare``; ``""`` holds ``run.yaml``) and by name."""


@dataclass(frozen=True)
class Choice:
    """One yaml file that can be chosen: ``group=name``."""

    group: str
    name: str
    provider: str  # name of the distribution
    path: Path

    def summary(self) -> str:
        """One line about it: its first comment, else the first sentence of its class's docstring."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            if line.startswith("#") and not line.startswith("# @package"):
                return line.lstrip("# ").strip()
        target = next(
            (ln.partition(":")[2].strip() for ln in lines if ln.startswith("_target_:")), ""
        )
        return _docstring(target)


def sources() -> tuple[EntryPoint, ...]:
    """The announced config packages, ours first.

    Raises:
        UsageError: none is announced, because this checkout was never installed.
    """
    found = sorted(
        entry_points(group=GROUP), key=lambda e: (e.value != GROUP, e.value, _provider(e))
    )
    if not any(entry.value == GROUP for entry in found):
        raise UsageError(
            f"privbench is not installed in {sys.prefix} (no entry point '{GROUP}'): run "
            f"'{Path(sys.executable).name} -m pip install -e .' once, in the folder of the checkout"
        )
    return tuple(found)


def listing() -> Listing:
    """Every choice of every group.

    Raises:
        NameClash: two distributions offer one choice, or a folder hides ``attacks``/``defenses``.
        PluginError: an announced package is nowhere to be found.
        UsageError: nothing is announced.
    """
    _not_hidden()
    found: dict[str, dict[str, Choice]] = {}
    for entry in sources():
        for choice in _choices(entry):
            other = found.setdefault(choice.group, {}).setdefault(choice.name, choice)
            if other.path != choice.path:
                raise NameClash(
                    f"'{choice.group}/{choice.name}' is offered by two distributions, "
                    f"'{other.provider}' ({other.path}) and '{choice.provider}' ({choice.path}); "
                    f"uninstall one of them: pip uninstall {choice.provider}"
                )
    return found


def search(group: str, wrong: str, known: Iterable[str]) -> UnknownName:
    """The error for a wrong name of a choice: the nearest right one, then all of them."""
    return UnknownName(f"there is no {group} '{wrong}'{hint(wrong, known)}")


def hint(wrong: str, known: Iterable[str]) -> str:
    """``; did you mean 'lira'? known: …`` for a misspelt name."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=1)
    mean = f"; did you mean '{near[0]}'?" if near else ""
    return f"{mean}; known: {', '.join(names) or 'none'}"


def register() -> None:
    """Put every announced config package on Hydra's search path. Calling it twice does no harm."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class Announced(SearchPathPlugin):
        """Appends what the entry points name."""

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for entry in sources():
                search_path.append(_provider(entry), f"pkg://{entry.value}")

    plugins = Plugins.instance()
    known = {kind.__qualname__ for kind in plugins.discover(SearchPathPlugin)}
    if Announced.__qualname__ not in known:
        plugins.register(Announced)


def locate(module: str) -> ModuleSpec | None:
    """Where a module would be imported from, without importing it or its parents."""
    spec, path, name = None, None, ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        found = (finder.find_spec(name, path) for finder in sys.meta_path)
        spec = next((candidate for candidate in found if candidate is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _provider(entry: EntryPoint) -> str:
    """Name of the distribution; each call reads its metadata."""
    return entry.dist.name if entry.dist is not None else entry.name


def _choices(entry: EntryPoint) -> Iterable[Choice]:
    spec, provider = locate(entry.value), _provider(entry)
    if spec is None or not spec.submodule_search_locations:
        raise PluginError(
            f"distribution '{provider}' announces the config package '{entry.value}', which "
            f"cannot be found; expected a folder with an __init__.py and yaml files; "
            f"{_way_out(entry)}"
        )
    for place in spec.submodule_search_locations:
        root = Path(place)
        for path in sorted(root.rglob("*.yaml")):
            group = path.parent.relative_to(root).as_posix()
            yield Choice("" if group == "." else group, path.stem, provider, path)


def _way_out(entry: EntryPoint) -> str:
    """What to type about a distribution whose files are gone.

    Never a bare ``pip install NAME`` of what came from a folder: an index may have a stranger's
    package of that name.
    """
    name = _provider(entry)
    folder = _installed_from(entry)
    if folder is None:
        return f"be rid of it with 'pip uninstall {name}', or install it again from where it came"
    there = folder if folder.is_dir() else "FOLDER"
    moved = "" if folder.is_dir() else f" (it was in {folder})"
    return (
        f"be rid of it with 'pip uninstall {name}', or install it from where it lies now{moved}: "
        f"pip install -e {there}"
    )


def _installed_from(entry: EntryPoint) -> Path | None:
    """The folder that a distribution was installed from; None = an index, an archive or not known."""
    text = entry.dist.read_text("direct_url.json") if entry.dist is not None else None
    url = urlsplit(json.loads(text).get("url", "")) if text else None
    return Path(unquote(url.path)) if url is not None and url.scheme == "file" else None


def _not_hidden() -> None:
    """Refuse to run on a stranger's ``attacks`` or ``defenses``."""
    home = Path(__file__).resolve().parent.parent
    for package in OURS:
        spec = locate(package)
        if spec is None:
            raise PluginError(
                f"privbench's own package '{package}' cannot be found; expected it beside "
                f"{home / 'privbench'}; install privbench again"
            )
        folder = Path(
            next(iter(spec.submodule_search_locations or ()), spec.origin or "")
        ).resolve()
        if folder.parent != home:
            raise NameClash(
                f"{folder} hides privbench's own package '{package}', expected in {home}; rename "
                f"that folder or file, or start privbench from another folder"
            )


def _docstring(target: str) -> str:
    """First sentence of a class's docstring, read from its source."""
    module, _, name = target.rpartition(".")
    spec = locate(module) if module else None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            paragraph = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            return paragraph.partition(". ")[0].removesuffix(".").replace("``", "")
    return ""
