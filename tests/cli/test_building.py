"""From configuration to objects: what is refused, and with which answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from privbench.compose.building import build, build_as
from privbench.contract import Budget, Spec, Threat
from privbench.errors import PluginError, UnknownName, UsageError

BUDGET = "privbench.contract.Budget"
HOSTS = "privbench.threats.crowd.Hosts"


@dataclass(frozen=True, kw_only=True)
class Needy:
    """A class with a setting that has no default."""

    weights: str


def test_inner_objects_come_first_and_lists_become_tuples() -> None:
    settings = {
        "_target_": HOSTS,
        "devices": ["device-1", "device-2"],
        "fraction": 1,
        "budget": {"_target_": BUDGET, "shadow_models": 4},
    }
    made = build(settings, "threat")
    assert made.budget == Budget(shadow_models=4)
    assert made.devices == ("device-1", "device-2")
    assert type(made.fraction) is float


def test_a_spec_keeps_its_settings_as_data() -> None:
    spec = {"_target_": "privbench.contract.Spec", "target": "torch.optim.SGD", "kwargs": {"lr": 1}}
    assert build(spec, "regime.optimizer") == Spec("torch.optim.SGD", {"lr": 1})


def test_an_unknown_setting_is_answered_with_the_right_one() -> None:
    with pytest.raises(UnknownName, match=r"threat has no setting 'fractoin'; did you mean 'fract"):
        build({"_target_": HOSTS, "fractoin": 0.5}, "threat")


@pytest.mark.parametrize(("key", "value"), [("fraction", "half"), ("draw", 1.5), ("draw", True)])
def test_a_setting_of_the_wrong_type_is_refused(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"threat\.{key}=.*expected"):
        build({"_target_": HOSTS, key: value}, "threat")


def test_a_missing_setting_says_what_to_type() -> None:
    sys.modules.setdefault(__name__, sys.modules[Needy.__module__])
    with pytest.raises(UsageError, match=r"regime\.weights=\.\.\."):
        build({"_target_": f"{Needy.__module__}.Needy"}, "regime")


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import nowhere_at_all", "nowhere_at_all"),
        ("raise RuntimeError('no licence')", "no licence"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_plug_in_that_fails_to_import_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, cause: str
) -> None:
    (tmp_path / "broken_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_plugin", raising=False)
    with pytest.raises(PluginError, match=rf"attack\._target_.*{cause}"):
        build({"_target_": "broken_plugin.Attack"}, "attack")


def test_an_object_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(PluginError, match="threat must be a Threat"):
        build_as(Threat, {"_target_": BUDGET}, "threat")
