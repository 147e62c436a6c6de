"""The sweep file: its words are ours, and the real agent drives privbench with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import served

from privbench.compose.words import understood
from privbench.report.report import Report

FILE = Path(__file__).resolve().parents[2] / "docs" / "wandb-sweep.yaml"


def _sweep() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def _words(chosen: dict[str, Any]) -> list[str]:
    """The command line that an agent makes of the file."""
    made: list[str] = []
    for part in _sweep()["command"]:
        if part == "${args_no_hyphens}":
            made += [f"{key}={value}" for key, value in chosen.items()]
        elif part not in ("${env}", "privbench"):
            made.append(part)
    return made


def _first() -> dict[str, Any]:
    return {key: facts["values"][0] for key, facts in _sweep()["parameters"].items()}


def test_its_words_ask_for_one_run_with_the_sink() -> None:
    asked = understood(_words(_first()))
    assert not asked.many
    assert {"sink=wandb", "seed=1"} <= set(asked.words)


def test_its_metric_is_one_that_the_sink_writes() -> None:
    assert _sweep()["metric"]["name"] == "leakage/membership/auc"


@pytest.mark.slow
def test_the_real_agent_drives_privbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    chosen = {**_first(), "attack": "loss_threshold", "regime.epochs": 2}
    with served() as memory:
        monkeypatch.setenv("WANDB_BASE_URL", memory.url)
        memory.sweep, memory.todo = FILE.read_text(), {"agents01": chosen}
        agent = [sys.executable, "-m", "wandb", "agent", "--count", "1", "someone/privbench/sweep1"]
        done = subprocess.run(agent, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(memory.runs) == {"agents01"}
    run = memory.runs["agents01"]
    assert run.variables["sweep"] == "sweep1" and run.config["seed"] == 1
    (file,) = (tmp_path / "runs" / "runs").glob("*/report.json")
    told = run.summary["leakage/membership/auc"]
    assert told == Report.load(file).scores[0].value
