"""What whoever watches hears, and that watching changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from privbench.contract import counted, progress, stage, told, watching
from privbench.experiment import carry_out
from privbench.plan import Plan

Words = list[tuple[str, int, int]]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Words:
    """Everything is told at once."""
    monkeypatch.setattr(progress, "OFTEN", 0.0)
    return []


def _into(heard: Words) -> Callable[[str, int, int], None]:
    return lambda name, done, total: heard.append((name, done, total))


def test_the_outermost_loop_is_told_of_under_the_name_of_its_stage(heard: Words) -> None:
    with watching(_into(heard)), stage("training"):
        found = [(i, j) for i in counted(range(2)) for j in counted("ab")]
        told(3, 4)
    assert found == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert heard == [("training", 0, 0), ("training", 0, 2), ("training", 1, 2), ("training", 3, 4)]


def test_a_loop_that_is_left_early_does_not_silence_the_next(heard: Words) -> None:
    with watching(_into(heard)):
        for _ in counted(range(9)):
            break
        list(counted(range(1)))  # one round is no loop
        list(counted(range(2)))
    assert heard == [("", 0, 9), ("", 0, 2), ("", 1, 2)]


def test_nobody_watches() -> None:
    with stage("training"):
        assert list(counted([3, 4])) == [3, 4]
        told(1, 2)


@pytest.mark.parametrize("seal", ["inline", "process"])
def test_a_run_tells_of_each_stage_and_gives_the_same(
    seal: str, heard: Words, plan: Callable[..., Plan]
) -> None:
    chosen = plan("regime=centralized", "threat=released", "attack=mi_face", "attack.steps=20")
    made = replace(chosen, seal=seal)
    alone = carry_out(made)
    with watching(_into(heard)):
        watched = carry_out(made)
    assert {name for name, _, _ in heard} >= {"training", "fits", "attack", "scoring"}
    assert any(name == "attack" and total == 20 for name, _, total in heard)
    assert watched.scores == alone.scores
    assert watched.run.guess_hash == alone.run.guess_hash
