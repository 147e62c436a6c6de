"""Finds plug-ins by name and runs the rules over them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from privbench import plugins
from privbench.checks import attack_rules, defense_rules
from privbench.checks.stage import Workshop
from privbench.compose.building import build
from privbench.contract import Attack, LearningDefense, MessageDefense
from privbench.errors import PluginError, PrivbenchError

GROUPS = ("attack", "defense")


@dataclass(frozen=True)
class Check:
    """One rule for one plug-in."""

    plugin: str
    rule: str
    run: Callable[[Workshop], None]

    def __str__(self) -> str:
        return f"{self.plugin}-{self.rule}"


def checks_of(*names: str) -> Iterator[Check]:
    """Every rule for the named attacks and defenses, or for all of a distribution's.

    Args:
        names: plug-ins (``lira``) or distributions (``my-attack``); none = everything installed.

    Raises:
        UnknownName: nobody has such a plug-in.
    """
    found = plugins.listing()
    choices = [choice for group in GROUPS for choice in found.get(group, {}).values()]
    known = {choice.name for choice in choices} | {choice.provider for choice in choices}
    for name in names:
        if name not in known:
            raise plugins.search("attack, defense or distribution", name, known)
    for choice in choices:
        if not names or choice.name in names or choice.provider in names:
            yield from _checks(choice.group, choice.name, choice.path)


def conformance(*names: str) -> Callable[..., None]:
    """A pytest test that runs every rule over the named plug-ins, one case a rule."""
    import pytest

    shops: dict[Path, Workshop] = {}

    @pytest.mark.parametrize("check", list(checks_of(*names)), ids=str)
    def test_conformance(check: Check, tmp_path_factory: Any) -> None:
        folder = tmp_path_factory.getbasetemp() / "privbench-checks"
        check.run(shops.setdefault(folder, Workshop(folder)))

    return test_conformance


def report_on(*names: str) -> int:
    """Run the rules and print one line each; the number that failed."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="privbench-checks-") as folder:
        shop = Workshop(Path(folder))
        for check in checks_of(*names):
            try:
                check.run(shop)
                print(f"ok      {check}")
            except PrivbenchError as error:
                failed += 1
                print(f"FAILED  {check}: {error}")
    return failed


def _checks(group: str, name: str, path: Path) -> Iterator[Check]:
    def made() -> Any:
        settings = OmegaConf.to_container(OmegaConf.load(path))
        return build(settings, group)

    def constructible(shop: Workshop) -> None:
        """The yaml builds an object of the right kind; every key of it is a field."""
        thing = made()
        right = Attack if group == "attack" else (MessageDefense, LearningDefense)
        if not isinstance(thing, right):
            raise PluginError(f"{path} builds a {type(thing).__name__}, which is no {group}")

    yield Check(name, "can_be_built", constructible)
    rules = attack_rules.RULES if group == "attack" else defense_rules.RULES
    for rule in rules:
        yield Check(name, rule.__name__, partial(_keeps, rule, name, made))


def _keeps(rule: Callable[..., None], name: str, made: Callable[[], Any], shop: Workshop) -> None:
    rule(name, made(), shop)
