"""How far a long loop has come, told to whoever watches; from inside a sealed attack too.

Watching draws no random number and changes no result; where nobody watches, nothing is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

Thing = TypeVar("Thing")

Tell = Callable[[str, int, int], None]
"""Takes the stage's name, how many rounds of it are done, and of how many."""

OFTEN = 0.1  # s between two words about one loop


@dataclass
class _Watch:
    """Who watches, what is being done, and whether a loop has the word already."""

    tell: Tell
    stage: str = ""
    busy: bool = False


_WATCH: ContextVar[_Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watching(tell: Tell) -> Iterator[None]:
    """Inside, loops that count are told to ``tell``."""
    token = _WATCH.set(_Watch(tell))
    try:
        yield
    finally:
        _WATCH.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Inside, it is ``name`` that is being done."""
    watch = _WATCH.get()
    if watch is None:
        yield
        return
    before, watch.stage = watch.stage, name
    watch.tell(name, 0, 0)
    try:
        yield
    finally:
        watch.stage = before


def counted(things: Collection[Thing]) -> Iterator[Thing]:
    """The same things, one by one; whoever watches hears how many are done.

    Of nested loops the outermost that has more than one round is told of.

    Example::

        for step in counted(range(self.steps)):
            ...
    """
    watch = _WATCH.get()
    if watch is None or watch.busy or len(things) < 2:
        yield from things
        return
    watch.busy, last = True, 0.0
    try:
        for done, thing in enumerate(things):
            now = time.monotonic()
            if now - last >= OFTEN:
                watch.tell(watch.stage, done, len(things))
                last = now
            yield thing
    finally:
        watch.busy = False


def told(done: int, total: int) -> None:
    """Pass on what somebody else has counted, under the name of the stage."""
    watch = _WATCH.get()
    if watch is not None:
        watch.tell(watch.stage, done, total)
