"""Numbered jobs in a few forked processes on this machine."""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from privbench.contract import watching
from privbench.errors import PrivbenchError, UsageError


@dataclass(frozen=True)
class Outcome:
    """A job that is over. ``lost`` says how its process ended, empty = it came to its end."""

    number: int
    title: str
    seconds: float
    lost: str = ""


@dataclass(eq=False)
class _Worker:
    """A forked process that takes numbers and answers with outcomes."""

    pid: int
    orders: BinaryIO
    answers: BinaryIO
    number: int = -1  # of the job it has in hand

    def take(self, number: int) -> None:
        self.number = number
        self.orders.write(f"{number}\n".encode())
        self.orders.flush()

    def close(self) -> str:
        """Let it end; says how it ended where that was not by itself."""
        self.orders.close()
        self.answers.close()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return f"its process was killed by {signal.Signals(os.WTERMSIG(status)).name}"
        code = os.waitstatus_to_exitcode(status)
        return f"its process ended with exit code {code}" if code else ""


def granted(wanted: object, threads: int) -> int:
    """Processes that may compute at a time: ``auto``, one for so many processors as it has threads.

    Raises:
        UsageError: neither ``auto`` nor a number of at least 1.
    """
    if wanted != "auto" and (type(wanted) is not int or wanted < 1):
        raise UsageError(f"workers={wanted}; expected auto or a whole number, at least 1")
    if isinstance(wanted, int):
        return wanted
    of_ours = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if of_ours else os.cpu_count() or 1
    return max(1, processors // threads)


def can_fork() -> bool:
    """Forked workers are safe where neither threads nor frameworks object: on Linux."""
    return sys.platform == "linux"


@dataclass(frozen=True)
class Watcher:
    """Called in the parent process.

    Args:
        over: a job is over.
        moves: job number, what is being done in it, rounds done, rounds in all (0 = not known).
    """

    over: Callable[[Outcome], None]
    moves: Callable[[int, str, int, int], None] = lambda *_: None


def spread(count: int, workers: int, job: Callable[[int], str], watcher: Watcher) -> None:
    """Do jobs ``0 … count - 1``, each once, ``workers`` at a time.

    Every other worker starts from the end of the list, where jobs share least with those at the start.

    Args:
        job: does one job and returns its title; what it has to say otherwise it puts on disk.
        watcher: hears in this process how jobs come along.
    """
    if workers < 2 or not can_fork():
        for number in range(count):
            started = time.perf_counter()
            with watching(partial(watcher.moves, number)):
                title = job(number)
            watcher.over(Outcome(number, title, time.perf_counter() - started))
        return
    left = deque(range(count))
    hired: list[_Worker] = []
    try:
        with selectors.DefaultSelector() as ready:
            for place in range(min(workers, count)):
                _hire(hired, ready, job, left, place)
            while hired:
                for key, _ in ready.select():
                    _answer(key.data, hired, ready, job, left, watcher)
    except BaseException:
        for worker in hired:
            os.kill(worker.pid, signal.SIGTERM)
        raise
    finally:
        for worker in hired:
            worker.close()


def _answer(
    worker: _Worker,
    hired: list[_Worker],
    ready: selectors.BaseSelector,
    job: Callable[[int], str],
    left: deque[int],
    watcher: Watcher,
) -> None:
    """Hear a worker out, then give it the next job, or replace it where it died."""
    line = worker.answers.readline()
    place = hired.index(worker)
    if line:
        said = json.loads(line)
        if "stage" in said:
            watcher.moves(worker.number, said["stage"], said["done"], said["total"])
            return
        watcher.over(Outcome(worker.number, said["title"], said["seconds"]))
        if left:
            worker.take(_next(left, place))
            return
    ready.unregister(worker.answers)
    hired.remove(worker)
    how = worker.close()
    if not line:
        watcher.over(Outcome(worker.number, "", 0.0, how or "its process ended early"))
        if left:
            _hire(hired, ready, job, left, place)


def _next(left: deque[int], place: int) -> int:
    return left.pop() if place % 2 else left.popleft()


def _hire(
    hired: list[_Worker],
    ready: selectors.BaseSelector,
    job: Callable[[int], str],
    left: deque[int],
    place: int,
) -> None:
    """Fork a worker and give it a first job."""
    orders_in, orders_out = os.pipe()
    answers_in, answers_out = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        for other in hired:  # or they would not see their pipes close
            other.orders.close()
            other.answers.close()
        os.close(orders_out)
        os.close(answers_in)
        _work(job, os.fdopen(orders_in, "rb"), os.fdopen(answers_out, "wb"))
    os.close(orders_in)
    os.close(answers_out)
    answers = os.fdopen(answers_in, "rb", buffering=0)  # or a line could wait unseen in a buffer
    worker = _Worker(pid, os.fdopen(orders_out, "wb"), answers)
    hired.insert(place, worker)
    ready.register(worker.answers, selectors.EVENT_READ, worker)
    worker.take(_next(left, place))


def _work(job: Callable[[int], str], orders: BinaryIO, answers: BinaryIO) -> None:
    """The life of a worker. It never returns."""
    code = 0

    def answer(**said: str | float) -> None:
        answers.write(json.dumps(said).encode() + b"\n")
        answers.flush()

    try:
        for line in orders:
            started = time.perf_counter()
            with watching(lambda name, done, total: answer(stage=name, done=done, total=total)):
                title = job(int(line))
            answer(title=title, seconds=time.perf_counter() - started)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the parent has gone
        code = 1
    except PrivbenchError as error:
        print(f"privbench: {error}", file=sys.stderr)
        code = 1
    except BaseException:  # noqa: BLE001 - told, and the parent hears of the exit code
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # nothing of the parent's is to be cleaned up here
