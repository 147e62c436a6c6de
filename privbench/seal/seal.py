"""The seal: an attack gets a view decoded from bytes, a seed, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from privbench.contract import Fitted, Guess, Knowledge, Oracle, Spec, View
from privbench.errors import AttackError, PluginError, PrivbenchError, StorageError, UsageError
from privbench.seal.helper import code_words, shared_helper
from privbench.seal.job import RESULT, Failure, Job, carry_out
from privbench.wire import codec

MODES = ("process", "inline")


class Seal:
    """Runs attacks and fits apart from the harness.

    ``process``: in a fork of a clean helper process, which never held any data. ``inline``: in this
    process, on a view decoded from bytes all the same; for systems without fork, and for classes
    that cannot be imported by name. Both give the same bits. It keeps out accidents, not hostile
    code of the same user.

    Args:
        mode: ``process`` or ``inline``.
        threads: of torch, while an attack runs.
        device: where attacks compute; a sealed child prepares for it.

    Raises:
        UsageError: unknown mode, or ``process`` on a system without fork.
        StorageError: no temporary folder can be made.

    Example::

        with Seal() as seal:
            (guess,) = seal.attack(spec_of(LossThreshold()), [view], seed=0)
    """

    def __init__(self, mode: str = "process", threads: int = 1, device: str = "cpu") -> None:
        if mode not in MODES:
            raise UsageError(f"seal={mode} is unknown; expected one of {', '.join(MODES)}")
        if mode == "process" and not hasattr(os, "fork"):
            raise UsageError("seal=process needs a system that can fork; here, type seal=inline")
        self.mode = mode
        self.threads = threads
        self.device = device
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="privbench-seal-"))  # readable by us alone
        except OSError as cause:
            raise StorageError(
                f"cannot make a temporary folder: {cause}; set TMPDIR to a folder with room"
            ) from cause
        self._remove = weakref.finalize(self, _remove, str(self._folder), os.getpid())

    @property
    def sealed(self) -> bool:
        """Do attacks run in a process of their own?"""
        return self.mode == "process"

    def start(self) -> None:
        """Start the helper now, in the background: the first attack need not wait for it."""
        if self.sealed:
            shared_helper(os.getpid()).start()

    def attack(
        self, spec: Spec, views: Sequence[View], seed: int, oracle: Oracle | None = None
    ) -> list[Guess]:
        """One guess a view.

        Args:
            spec: the attack as data.
            views: what its seats know; a view's own ``oracle``, if any, answers its queries.
            seed: all randomness of the attack derives from it.
            oracle: answers the queries of every view instead. It runs in this process.

        Raises:
            AttackError: the attack raised, or its process was killed.
            PrivbenchError: of whatever kind the attack raised (``NotApplicable``, ``PluginError``).
        """
        if not views:
            return []
        oracles = tuple(oracle or view.oracle for view in views)
        asks = tuple(one is not None for one in oracles)
        bare = tuple(replace(view, oracle=None) for view in views)
        guesses: list[Guess] = self._done(self._job(spec, bare, seed, asks), oracles)
        return guesses

    def fit(self, spec: Spec, knowledge: Knowledge, seed: int) -> Fitted:
        """What a fit learns from its knowledge.

        Raises:
            AttackError, PrivbenchError: as ``attack``.
        """
        fitted: Fitted = self._done(self._job(spec, knowledge, seed, ()), ())
        return fitted

    def close(self) -> None:
        """Remove what it kept on disk. The helper process ends with this process."""
        self._remove()

    def __enter__(self) -> Seal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _job(self, spec: Spec, given: Any, seed: int, asks: tuple[bool, ...]) -> Job:
        if self.sealed and ("<locals>" in spec.target or spec.target.startswith("__main__.")):
            raise PluginError(
                f"'{spec.target}' cannot be imported by name in another process; expected a class "
                "at the top of an importable module: move it there, or type seal=inline"
            )
        return Job(
            spec=spec,
            given=given,
            seed=seed,
            asks=asks,
            threads=self.threads,
            device=self.device,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            precision=torch.get_float32_matmul_precision(),
        )

    def _done(self, job: Job, oracles: tuple[Oracle | None, ...]) -> Any:
        """The result of a job, read back from its file."""
        if not self._folder.exists():
            raise UsageError("this seal is closed; make a new one with Seal(...)")
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            job.save(folder)
            code = self._sealed(folder, oracles) if self.sealed else _inline(folder, oracles)
            failure = Failure.load(folder)
            if failure is not None:
                raise failure.error(job.words)
            if code != 0 or not (folder / RESULT).exists():
                raise AttackError(_died(job, code))
            return codec.load(folder / RESULT)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sealed(self, folder: Path, oracles: tuple[Oracle | None, ...]) -> int:
        broken: list[Exception] = []

        def answer(view: int, name: str) -> None:
            try:
                codec.save(_answer(oracles, view, codec.load(folder / name)), folder / name)
            except PrivbenchError:
                raise
            except Exception as error:  # an oracle that breaks is no failure of the attack
                broken.append(error)
                raise AttackError("the oracle broke") from error

        code = shared_helper(os.getpid()).run(folder, answer)
        if broken:
            raise broken[0]
        return code


def _inline(folder: Path, oracles: tuple[Oracle | None, ...]) -> int:
    def ask(view: int, x: Tensor) -> Tensor:
        try:
            y = _answer(oracles, view, codec.decode(codec.encode(x)))
        except PrivbenchError as refusal:
            raise AttackError(str(refusal)) from refusal
        found: Tensor = codec.decode(codec.encode(y))
        return found

    try:
        carry_out(Job.load(folder), folder, ask)
    except Exception as error:  # noqa: BLE001 - reported in the harness' own words
        Failure.of(error).save(folder)
    return 0


def _answer(oracles: tuple[Oracle | None, ...], view: int, x: Tensor) -> Tensor:
    oracle = oracles[view]
    if oracle is None:
        raise AttackError("this seat has no oracle")
    return oracle(x)


def _died(job: Job, code: int) -> str:
    """Why there is neither a result nor an error."""
    advice = "it must return its guesses and not end its process"
    if code == -getattr(signal, "SIGKILL", 9):
        advice = "often memory ran out: choose fewer seats (threat.sample=...) or steps"
    return f"{job.words} ended without an answer ({code_words(code)}); {advice}"


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
