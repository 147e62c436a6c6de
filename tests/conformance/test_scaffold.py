"""A fresh scaffold keeps every rule, so that whoever starts from it sees what he breaks."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from privbench.checks import Workshop, attack_rules
from privbench.scaffold import scaffold

SEALED = "repeats_itself"
"""Goes through a process that may have been started before the scaffold was on the path."""


def test_a_fresh_scaffold_keeps_every_rule(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaffold("freshly_made", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "freshly-made-attack"))
    attack = importlib.import_module("freshly_made_attack.freshly_made").FreshlyMade()
    for rule in attack_rules.RULES:
        if rule.__name__ != SEALED:
            rule("freshly_made", attack, shop)
