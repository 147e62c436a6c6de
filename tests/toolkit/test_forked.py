"""Forked trainings: the bits of the plain loop, and nothing left behind whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from privbench.contract import Budget, Knowledge, Public, Recipe, Samples, watching
from privbench.errors import TrainingError
from privbench.toolkit import forked, shadows
from privbench.toolkit.forked import State, side_by_side
from privbench.toolkit.shadows import ShadowModels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")


@pytest.fixture(autouse=True)
def _forking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "_may_fork", lambda: True)  # the runner of tests has threads


def drawn(number: int) -> State:
    rng = torch.Generator().manual_seed(number)
    return {
        "weight": torch.randn(
            300, 100, generator=rng
        ).t(),  # more than a pipe holds; not contiguous
        "count": torch.tensor(number),
        "half": torch.randn(3, generator=rng).half(),
        "pid": torch.tensor(os.getpid()),
    }


def children() -> set[str]:
    """Processes that this one started, ended ones that nobody waited for among them."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended since it was listed
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            found |= {process.name} if int(parent) == os.getpid() else set()
    return found


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before, "a worker was left behind"


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_results_are_those_of_the_plain_loop_in_order(workers: int) -> None:
    found = side_by_side(drawn, 5, workers)
    for number, state in enumerate(found):
        for name, tensor in drawn(number).items():
            assert name == "pid" or torch.equal(state[name], tensor)
            assert state[name].dtype == tensor.dtype
    elsewhere = {int(state["pid"]) for state in found} - {os.getpid()}
    assert bool(elsewhere) == (workers > 1)


def test_shadow_models_have_the_same_bits_whoever_trains_them(
    recipe: Recipe, pool: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "stackable", lambda *_: False)
    public = Public(candidates=pool, recipe=recipe, trainer="privbench.regimes.training.train")
    knowledge = Knowledge(public, Budget(shadow_models=4))
    here, there = (
        ShadowModels().fit(replace(knowledge, workers=n), torch.Generator().manual_seed(3))
        for n in (1, 2)
    )
    assert here.tensors.keys() == there.tensors.keys()
    for name, tensor in here.tensors.items():
        assert torch.equal(tensor, there.tensors[name])


def test_an_error_is_raised_here_with_its_type(capfd: pytest.CaptureFixture[str]) -> None:
    def fails(number: int) -> State:
        if number == 2:
            raise TrainingError(f"model {number} in {os.getpid()} got NaN")
        return drawn(number)

    with pytest.raises(TrainingError, match=f"model 2 in {os.getpid()}"):
        side_by_side(fails, 6, 2)
    assert capfd.readouterr().err == ""


def test_a_process_that_dies_is_made_good_here() -> None:
    here = os.getpid()

    def dies(number: int) -> State:
        if number == 1 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return drawn(number)

    found = side_by_side(dies, 4, 2)
    assert [int(state["count"]) for state in found] == [0, 1, 2, 3]
    assert int(found[1]["pid"]) == here


def test_whoever_watches_hears_of_models_not_of_their_steps() -> None:
    heard = []

    def slow(number: int) -> State:
        time.sleep(0.12)
        return drawn(number)

    with watching(lambda _, done, total: heard.append((done, total))):
        side_by_side(slow, 4, 2)
    assert heard
    assert all(total == 4 for _, total in heard)


ENDLESS = """
import os, sys, time
from privbench.toolkit.forked import side_by_side
def endless(number):
    print(os.getpid(), flush=True)
    time.sleep(60)
side_by_side(endless, 4, 2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_a_run_that_is_interrupted(end: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "endless.py"
    file.write_text(ENDLESS)
    asked = [sys.executable, str(file)]
    with subprocess.Popen(asked, stdout=-1, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        pids = [int(run.stdout.readline()) for _ in range(2)]
        run.send_signal(end)
    for _ in range(100):
        left = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        if not left:
            break
        time.sleep(0.1)
    assert not left
