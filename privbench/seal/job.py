"""What is done inside a seal: one job is read from a folder, its result or failure written there.

The same code runs in a sealed child and inline, so that both give the same bits.
"""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from privbench import errors
from privbench.contract import (
    GUESS_OF_GOAL,
    Attack,
    Fit,
    Fitted,
    Guess,
    Knowledge,
    Oracle,
    Spec,
    View,
)
from privbench.errors import AttackError, PluginError, PrivbenchError
from privbench.wire import codec

Ask = Callable[[int, Tensor], Tensor]
"""Put inputs to the oracle of the view of that number."""

JOB, RESULT, FAILURE = "job", "result", "failure"
"""Files in a job's folder."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An attack on some views, or a fit on some knowledge.

    ``asks[i]`` says whether view i has an oracle; ``deterministic`` and ``precision`` repeat the
    harness' own settings of torch, which a fresh process would not have.
    """

    spec: Spec
    given: tuple[View, ...] | Knowledge
    seed: int
    asks: tuple[bool, ...] = ()
    threads: int = 1
    device: str = "cpu"
    deterministic: bool = False
    precision: str = "highest"  # of float32 matrix products

    @property
    def words(self) -> str:
        """How messages call it."""
        what = "fit" if isinstance(self.given, Knowledge) else "attack"
        return f"{what} {self.spec.target.rpartition('.')[2]}"

    def save(self, folder: Path) -> None:
        """Write it where ``carry_out`` finds it."""
        codec.save(tuple(getattr(self, f.name) for f in fields(self)), folder / JOB)

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read it, its tensors mapped from the file."""
        values = codec.load(folder / JOB)
        return cls(**dict(zip((f.name for f in fields(cls)), values, strict=True)))


@dataclass(frozen=True)
class Failure:
    """An error on its way out of a seal."""

    kind: str  # name of the exception's class
    message: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error that was caught."""
        text = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, str(error), text)

    def save(self, folder: Path) -> None:
        """Leave it in the job's folder."""
        text = json.dumps([self.kind, self.message, self.traceback])
        (folder / FAILURE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Failure | None:
        """What was left there, if anything."""
        file = folder / FAILURE
        return cls(*json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None

    def error(self, words: str) -> PrivbenchError:
        """The error to raise in the harness: ours keep their type, others become AttackError."""
        known = getattr(errors, self.kind, None)
        hint = ""
        if "'__main__" in self.message:
            hint = "; put the class into a module that can be imported, or type seal=inline"
        if isinstance(known, type) and issubclass(known, PrivbenchError):
            found: PrivbenchError = known(self.message + hint)
        else:
            told = f"{self.kind}: {self.message}" if self.message else self.kind
            found = AttackError(f"{words} failed: {told} (debug=true shows where){hint}")
        found.traceback = self.traceback
        return found


def carry_out(job: Job, folder: Path, ask: Ask) -> None:
    """Do a job and write its result.

    Raises:
        PluginError: the class is no attack or fit, or answers with something else than it should.
        Exception: whatever the attack raises.
    """
    with _own_state(job):
        codec.save(_perform(job, ask), folder / RESULT)


def _perform(job: Job, ask: Ask) -> list[Guess] | Fitted:
    subject, rng = job.spec.build(), torch.Generator().manual_seed(job.seed)
    if isinstance(job.given, Knowledge):
        if not isinstance(subject, Fit):
            raise _unlike(job, subject, "Fit")
        fitted = subject.fit(job.given, rng)
        if not isinstance(fitted, Fitted):
            raise PluginError(f"{job.words} gave {type(fitted).__name__}; expected Fitted")
        return fitted
    if not isinstance(subject, Attack):
        raise _unlike(job, subject, "Attack")
    views = [
        replace(view, oracle=_oracle(ask, number) if asks else None)
        for number, (view, asks) in enumerate(zip(job.given, job.asks, strict=True))
    ]
    return _checked(job, subject.goal, subject.run_all(views, rng), len(views))


def _checked(job: Job, goal: str, guesses: Sequence[Guess], views: int) -> list[Guess]:
    kind = GUESS_OF_GOAL.get(goal)
    if kind is None:
        raise PluginError(
            f"{job.words} has goal '{goal}'; expected one of {', '.join(GUESS_OF_GOAL)}"
        )
    wrong = [type(guess).__name__ for guess in guesses if not isinstance(guess, kind)]
    if wrong or len(guesses) != views:
        raise PluginError(
            f"{job.words} gave {len(guesses)} guesses for {views} views"
            f"{f', some of type {wrong[0]}' if wrong else ''}; expected one {kind.__name__} a view"
        )
    return list(guesses)


def _unlike(job: Job, subject: object, base: str) -> PluginError:
    return PluginError(
        f"'{job.spec.target}' gives {type(subject).__name__}; expected {base} of privbench.contract"
    )


def _oracle(ask: Ask, number: int) -> Oracle:
    return lambda x: ask(number, x)


@contextmanager
def _own_state(job: Job) -> Iterator[None]:
    """Threads and global random states of its own; what the caller had comes back.

    Attacks draw from the generator they are given. One that does not is at least repeatable.
    """
    started = torch.cuda.is_initialized()
    devices = list(range(torch.cuda.device_count())) if started else []
    threads, python = torch.get_num_threads(), random.getstate()
    numpy = np.random.get_state()  # noqa: NPY002 - it is the global state that is kept
    with torch.random.fork_rng(devices=devices):
        torch.set_num_threads(job.threads)
        torch.manual_seed(job.seed)
        random.seed(job.seed)
        np.random.seed(job.seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
