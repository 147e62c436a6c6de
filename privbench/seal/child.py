"""Inside the helper process: wait for requests, fork once for each, and let the fork do the job.

Requests and answers are JSON lines, those of the forks short enough to be written whole or not at
all; everything large lies in the request's folder.

The helper's own standard input and output are the pipe. An attack gets neither: what it prints goes
to standard error, and what it reads is empty.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from privbench.contract import watching
from privbench.errors import AttackError
from privbench.seal.job import Failure, Job, carry_out
from privbench.wire import codec

_SLOW_IMPORTS = ("torch._dynamo",)
"""What torch itself imports at the first optimiser: over a second, not to be spent in each fork."""


@dataclass(frozen=True)
class _Pipe:
    """The two directions between harness and helper, unbuffered so that forks can share them."""

    down: BinaryIO
    up: int

    def read(self) -> Any:
        """The next line from the harness; None once it has gone."""
        line = self.down.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def write(self, **line: Any) -> None:
        """One line to the harness."""
        os.write(self.up, json.dumps(line).encode() + b"\n")


def serve() -> None:
    """Answer requests until the harness has gone. Runs no operation of torch."""
    down, up = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    pipe = _Pipe(open(down, "rb", buffering=0), up)
    for name in _SLOW_IMPORTS:
        importlib.import_module(name)
    gc.freeze()  # what is loaded by now stays: collecting it in a fork would copy all its pages
    with contextlib.suppress(BrokenPipeError):  # the harness has gone
        _answer_all(pipe)
    os._exit(0)


def _answer_all(pipe: _Pipe) -> None:
    while (request := pipe.read()) is not None:
        alive, held = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(alive)
            _do(request, pipe)
        os.close(held)
        code = _wait(pid, alive, pipe.down.fileno())
        os.close(alive)
        if code is None:
            return
        pipe.write(done=code)


def _wait(pid: int, alive: int, down: int) -> int | None:
    """Exit code of the fork (minus the signal that ended it); None if the harness has gone.

    Args:
        alive: readable end of a pipe whose other end only the fork holds.
        down: the pipe from the harness; only looked at for its end, its lines are the fork's.
    """
    poll, patience = select.poll(), 200  # milliseconds
    poll.register(alive, select.POLLIN)
    poll.register(down, 0)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            _end_group(pid)
            return os.waitstatus_to_exitcode(status)
        events = dict(poll.poll(patience))
        if down in events:
            _end_group(pid)
            os.waitpid(pid, 0)
            return None
        if alive in events:  # it is about to end
            poll.unregister(alive)
            patience = 1


def _end_group(pid: int) -> None:
    """End what a fork started and left behind (or itself)."""
    for end in (os.killpg, os.kill):
        try:
            end(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _do(request: dict[str, Any], pipe: _Pipe) -> NoReturn:
    """The fork's whole life."""
    code, folder = 1, Path(request["folder"])
    try:
        os.setpgid(0, 0)
        sys.path[:] = request["path"]
        job = Job.load(folder)
        _prepare(job)
        with watching(lambda _, done, total: pipe.write(progress=[done, total])):
            carry_out(job, folder, _Queries(folder, pipe))
        code = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, the harness is told
        Failure.of(error).save(folder)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _prepare(job: Job) -> None:
    """Set torch as it is set in the harness."""
    if job.device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(job.deterministic)
    torch.set_float32_matmul_precision(job.precision)


class _Queries:
    """Puts questions to the harness and waits for its answers."""

    def __init__(self, folder: Path, pipe: _Pipe) -> None:
        self._folder = folder
        self._pipe = pipe
        self._count = 0

    def __call__(self, view: int, x: Tensor) -> Tensor:
        """Answer of the oracle of one view.

        Raises:
            AttackError: the oracle refused, for instance because the budget is spent.
        """
        self._count += 1
        file = self._folder / f"query-{self._count}"
        codec.save(x, file)
        self._pipe.write(view=view, query=file.name)
        line = self._pipe.read()
        if line is None:
            raise AttackError("the harness has gone")
        if "refused" in line:
            raise AttackError(line["refused"])
        answer: Tensor = codec.load(file)
        file.unlink()
        return answer
