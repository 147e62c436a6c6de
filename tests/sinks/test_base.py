"""What every sink keeps to."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from omegaconf import OmegaConf

from privbench.compose.building import build_as
from privbench.errors import UnknownName, UsageError
from privbench.plugins import listing
from privbench.sinks.base import Sink
from privbench.sinks.wandb import WandbSink

NAMES = ("tensorboard", "wandb")


def _settings(name: str) -> dict[str, Any]:
    return dict(OmegaConf.load(listing()["sink"][name].path))


@pytest.mark.parametrize("name", NAMES)
def test_its_yaml_makes_it(name: str) -> None:
    assert build_as(Sink, _settings(name), f"sink.{name}").name == name
    text = listing()["sink"][name].path.read_text()
    assert text.startswith(f"# @package sink.{name}\n")


def test_there_are_no_others() -> None:
    assert tuple(sorted(listing()["sink"])) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_said_with_what_to_type(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=rf"pip install 'privbench\[{name}\]'"):
        build_as(Sink, _settings(name), f"sink.{name}")


@pytest.mark.parametrize("wrong", [{"mode": "on"}, {"timeout": 0.0}, {"timeout": float("nan")}])
def test_wrong_settings_are_answered_with_the_right_ones(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        WandbSink(**wrong)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(UnknownName, match="mode"):
        build_as(Sink, {**_settings("wandb"), "mod": "online"}, "sink.wandb")
