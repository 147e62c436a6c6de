"""Trainings side by side in forked processes, with the bits of one after another."""

from __future__ import annotations

import ctypes
import importlib
import io
import os
import selectors
import signal
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import torch
from safetensors.torch import load, save
from torch import Tensor

from privbench.contract import counted, watching

State = Mapping[str, Tensor]
"""A state dict."""

_TICKET = struct.Struct("=I")  # a job's number; a pipe hands out so few bytes in one piece
_HEAD = struct.Struct("=IQ")  # before an answer: the job's number, and how many bytes follow
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux: also where nothing can be caught
_MOST = 65536 // _TICKET.size  # tickets that fit a pipe before anybody reads


@dataclass(frozen=True)
class _Worker:
    """A forked process, and the end of its pipe from which its answers are read."""

    pid: int
    answers: BinaryIO


def side_by_side(job: Callable[[int], State], count: int, workers: int) -> list[State]:
    """The results of jobs ``0 … count - 1``, by forked processes where that is possible.

    A job must depend on its number alone. Then it gives the same bits here and in any process, and
    what a process failed to do, or died over, is done again here, where its error can be seen. No
    process outlives the call, whatever ends it.

    Args:
        job: trains one model.
        workers: processes at a time; below 2, or where forking is not safe, all is done here.
    """
    found: dict[int, State] = {}
    workers = min(workers, count)
    if workers > 1 and count <= _MOST and _may_fork():
        with closing(_forked(job, count, workers)) as answers:
            for _ in counted(range(count)):
                number, state = next(answers, (-1, {}))
                if number < 0:
                    break
                found[number] = state
    left = [number for number in range(count) if number not in found]
    found |= {number: job(number) for number in counted(left)}
    return [found[number] for number in range(count)]


def _may_fork() -> bool:
    """Not where frameworks object to a fork, another thread may hold a lock, or torch has a pool of
    threads, which a fork would wait for in vain."""
    alone = threading.active_count() == 1 and torch.get_num_threads() == 1
    return sys.platform == "linux" and alone and not torch.cuda.is_initialized()


def _forked(
    job: Callable[[int], State], count: int, workers: int
) -> Generator[tuple[int, State], None, None]:
    """Number and result of each job, in the order in which they are done; some may be missing."""
    importlib.import_module(
        "torch._dynamo"
    )  # the first optimiser does: once here, not in each fork
    tickets, printer = os.pipe()
    os.write(printer, b"".join(_TICKET.pack(number) for number in range(count)))
    os.close(printer)
    hired: list[_Worker] = []
    try:
        with selectors.DefaultSelector() as ready:
            for _ in range(workers):
                hired.append(_hire(job, tickets, hired))
                ready.register(hired[-1].answers, selectors.EVENT_READ)
            while ready.get_map():
                for key, _ in ready.select():
                    answer = _read(key.fileobj)  # type: ignore[arg-type]
                    if answer is None:
                        ready.unregister(key.fileobj)
                    else:
                        yield answer
    finally:
        os.close(tickets)
        for worker in hired:
            os.kill(worker.pid, signal.SIGKILL)  # nobody else waits for it: the number is still its
            os.waitpid(worker.pid, 0)
            worker.answers.close()


def _read(answers: BinaryIO) -> tuple[int, State] | None:
    """The next answer of a worker; None where it has ended."""
    head = answers.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    number, size = _HEAD.unpack(head)
    told = answers.read(size)
    return (number, load(told)) if len(told) == size else None


def _hire(job: Callable[[int], State], tickets: int, hired: list[_Worker]) -> _Worker:
    """Fork a worker."""
    incoming, outgoing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():  # of threads below Python, which hold no lock of ours
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(incoming)
        for other in hired:  # or its pipe would outlive its reader
            os.close(other.answers.fileno())
        _work(job, tickets, outgoing)
    os.close(outgoing)
    return _Worker(pid, os.fdopen(incoming, "rb"))


def _work(job: Callable[[int], State], tickets: int, outgoing: int) -> NoReturn:
    """The life of a worker: it takes tickets until there are none, or until a job fails."""
    try:
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
        with os.fdopen(outgoing, "wb") as answers, watching(lambda *_: None):
            while ticket := os.read(tickets, _TICKET.size):
                (number,) = _TICKET.unpack(ticket)
                state = {name: t.detach().contiguous().clone() for name, t in job(number).items()}
                told = save(state)
                sys.stdout.flush()
                sys.stderr.flush()
                answers.write(_HEAD.pack(number, len(told)) + told)
                answers.flush()
    except BaseException:  # noqa: BLE001 - the job is done again where its error can be seen
        while os.read(tickets, io.DEFAULT_BUFFER_SIZE):  # and nobody need start another
            continue
    finally:
        os._exit(0)  # nothing of the parent's is to be cleaned up here
