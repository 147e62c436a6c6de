"""Every lock of the seal has a test that fails when the lock is opened."""

from __future__ import annotations

import fcntl
import os
import random
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from privbench.contract import Knowledge, MembershipGuess, Spec, View
from privbench.contract.threat import Budget
from privbench.errors import AttackError, NotApplicable, PluginError, UsageError
from privbench.seal import Seal
from privbench.seal.helper import Helper, _close_own, shared_helper
from privbench.seal.job import Job

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="seal=process needs fork")


def doing(what: str, argument: str = "") -> Spec:
    return Spec("locked_in.Doing", {"what": what, "argument": argument})


def facts(seal: Seal, view: View, what: str, argument: str = "", oracle=None) -> list[float]:
    (guess,) = seal.attack(doing(what, argument), [view], seed=3, oracle=oracle)
    assert isinstance(guess, MembershipGuess)
    return guess.scores.tolist()


def wait_until_free(file: Path) -> None:
    """Wait until no living process holds the lock that the attack took on this file."""
    with file.open() as held:
        for _ in range(250):
            try:
                return fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
    raise AssertionError("a process is still there")


def test_process_and_inline_give_the_same_bits(view: View) -> None:
    other = replace(view, seat=replace(view.seat, name="other"))
    with Seal("process") as one, Seal("inline") as two:
        sealed, inline = (s.attack(doing("guess"), [view, other], seed=3) for s in (one, two))
        assert one.sealed and not two.sealed
    for left, right in zip(sealed, inline, strict=True):
        assert torch.equal(left.scores, right.scores)
    assert not torch.equal(sealed[0].scores, sealed[1].scores), "a generator a seat"


def test_the_seed_decides(seal: Seal, view: View) -> None:
    def run(seed: int) -> torch.Tensor:
        return seal.attack(doing("guess"), [view], seed)[0].scores

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_even_a_global_draw_is_repeatable_and_leaves_ours_alone(seal: Seal, view: View) -> None:
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    threads = torch.get_num_threads()
    first = facts(seal, view, "draw_globally")
    torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    torch.set_rng_state(before[0]), random.setstate(before[1])
    assert facts(seal, view, "draw_globally") == first
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert torch.get_num_threads() == threads


def test_the_views_tensors_are_not_ours(seal: Seal, view: View) -> None:
    x = view.public.candidates.x
    before = x.clone()
    x.requires_grad_(True)
    facts(seal, view, "write_into_the_view")
    assert torch.equal(x.detach(), before)


def test_the_child_finds_nothing_of_the_harness(
    sealed: Seal, view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    import privbench.data.population  # noqa: F401  # what must not be found there, is here

    state = types.ModuleType("harness_state")
    state.secret = True
    monkeypatch.setitem(sys.modules, "harness_state", state)
    monkeypatch.setattr(sys.modules["__main__"], "HARNESS_ONLY", 1, raising=False)
    view.public.candidates.x.requires_grad_(True)
    clean, harness, main, others, ours = facts(sealed, view, "look_around")
    assert clean and not any((harness, main, others, ours))
    with Seal("inline") as inline:
        assert facts(inline, view, "look_around") == [1, 1, 1, 1, 1], "the test sees an open lock"


def test_each_attack_is_a_fork_of_one_helper(sealed: Seal, view: View) -> None:
    first, second = facts(sealed, view, "pid"), facts(sealed, view, "pid")
    with Seal("process", threads=2) as other:
        third = facts(other, view, "pid")
    assert len({first[0], second[0], third[0], os.getpid()}) == 4
    assert first[1] == second[1] == third[1] != os.getpid()
    assert (first[2], third[2]) == (1, 2)


def test_prints_do_not_disturb_the_pipe(sealed: Seal, view: View) -> None:
    assert facts(sealed, view, "print_and_read") == [1]
    assert facts(sealed, view, "pid")


def test_errors_come_back_with_their_words_and_traceback(seal: Seal, view: View) -> None:
    with pytest.raises(AttackError, match="attack Doing failed: ValueError: the words") as caught:
        facts(seal, view, "raise")
    assert "locked_in.py" in caught.value.traceback and "ValueError" in caught.value.traceback
    with pytest.raises(NotApplicable, match="needs pairs"):
        facts(seal, view, "not_applicable")
    with pytest.raises(PluginError, match="NaN"):
        facts(seal, view, "nan")
    with pytest.raises(PluginError, match="gave 1 guesses for 2 views"):
        seal.attack(Spec("locked_in.TooFew"), [view, view], seed=0)
    with pytest.raises(PluginError, match="expected Attack"):
        seal.attack(Spec("locked_in.Learns"), [view], seed=0)
    with pytest.raises(PluginError, match=r"cannot import 'nowhere.Attack'"):
        seal.attack(Spec("nowhere.Attack"), [view], seed=0)


@pytest.mark.parametrize(
    ("what", "words"),
    [("be_killed", "SIGKILL.*memory"), ("leave", "without an answer"), ("exit", "SystemExit")],
)
def test_a_child_that_dies_is_an_error_and_the_next_one_runs(
    sealed: Seal, view: View, what: str, words: str
) -> None:
    with pytest.raises(AttackError, match=words):
        facts(sealed, view, what)
    assert facts(sealed, view, "pid")


def test_queries_are_answered_by_the_harness_until_it_refuses(seal: Seal, view: View) -> None:
    asked: list[int] = []

    def oracle(x: torch.Tensor) -> torch.Tensor:
        asked.append(os.getpid())
        if len(asked) > 4:
            raise AttackError("the budget of 4 queries is spent")
        return x * 2

    expected = [2 * x.sum().item() for x in view.public.candidates.x[:4]]
    assert facts(seal, view, "ask", "4", oracle) == pytest.approx(expected)
    assert asked == [os.getpid()] * 4
    with pytest.raises(AttackError, match=r"^the budget of 4 queries is spent$"):
        facts(seal, replace(view, oracle=oracle), "ask", "1")
    assert facts(seal, view, "guess"), "the pipe is in step again"


def test_an_oracle_that_breaks_is_our_fault_and_told_as_such(sealed: Seal, view: View) -> None:
    def oracle(x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        facts(sealed, view, "ask", "1", oracle)
    assert facts(sealed, view, "guess")


def test_fits_run_in_the_same_seal(view: View) -> None:
    knowledge = Knowledge(view.public, Budget())
    with Seal("process") as one, Seal("inline") as two:
        left, right = (s.fit(Spec("locked_in.Learns"), knowledge, 9) for s in (one, two))
    assert left.facts == {"n": 50} and torch.equal(left.tensors["draw"], right.tensors["draw"])
    assert torch.equal(left.tensors["mean"], view.public.candidates.x.mean(0))


def test_a_child_may_fork_but_leaves_nobody_behind(
    sealed: Seal, view: View, tmp_path: Path
) -> None:
    assert facts(sealed, view, "fork") == [7]
    assert facts(sealed, view, "leave_a_fork_behind", str(tmp_path / "held")) == [1]
    wait_until_free(tmp_path / "held")


def test_closing_the_pipe_ends_helper_and_child(view: View, tmp_path: Path) -> None:
    helper, job = Helper(), tmp_path / "job"
    job.mkdir()
    spec = doing("hang", str(tmp_path / "held"))
    Job(spec=spec, given=(view,), seed=0, asks=(False,)).save(job)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(helper.run, job, lambda view, name: None)
        while not (tmp_path / "held").exists():
            time.sleep(0.02)
        process = helper._process
        process.stdin.close()  # what the end of the harness, however it comes, does
        with pytest.raises(AttackError, match="helper process ended"):
            running.result(timeout=10)
    assert process.poll() == 0
    wait_until_free(tmp_path / "held")


def test_two_seals_at_once_take_turns(view: View) -> None:
    def scores(seed: int) -> list[float]:
        with Seal("process") as seal:
            return seal.attack(doing("guess"), [view], seed)[0].scores.tolist()

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(scores, range(8)))
    assert together == [scores(seed) for seed in range(8)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_leaves_our_helper_and_folder_alone(sealed: Seal, view: View) -> None:
    parent = facts(sealed, view, "pid")[1]
    pid = os.fork()
    if not pid:
        own = shared_helper(os.getpid())
        sealed.close()
        _close_own(shared_helper(os.getppid()), os.getppid())
        os._exit(0 if own is not shared_helper(os.getppid()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert facts(sealed, view, "pid")[1] == parent


def test_the_folder_is_ours_alone_and_goes_with_the_seal(view: View) -> None:
    seal = Seal("inline")
    folder = seal._folder
    assert folder.stat().st_mode & 0o777 == 0o700
    facts(seal, view, "guess")
    assert list(folder.iterdir()) == [], "nothing is left of a job"
    seal.close()
    assert not folder.exists()
    with pytest.raises(UsageError, match="closed"):
        facts(seal, view, "guess")


def test_what_cannot_be_imported_there_says_what_to_type(sealed: Seal, view: View) -> None:
    for target in ("__main__.Mine", "cell.<locals>.Mine"):
        with pytest.raises(PluginError, match="seal=inline"):
            sealed.attack(Spec(target), [view], seed=0)
    with pytest.raises(UsageError, match="expected one of process, inline"):
        Seal("outline")
    assert sealed.attack(doing("raise"), [], seed=0) == []
