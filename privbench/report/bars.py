"""Bars that say how far things have come, with the time that is left; on a terminal alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from privbench.contract import Tell

WHOLE = -1
"""Number of the bar that stands for everything."""


class Bars:
    """One bar for each thing that goes on; each shows what is being done in it.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._tasks: dict[int, TaskID] = {}
        self._shown: dict[int, str] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("time left"),
            TimeRemainingColumn(),
            TextColumn("so far"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._progress.start()

    def move(self, number: int, what: str, done: int, total: int) -> None:
        """So many rounds of something are done; something else starts its time anew.

        Args:
            number: of the bar; ``WHOLE`` for that of everything.
            total: 0 = nobody knows.
        """
        if number not in self._tasks:
            self._tasks[number] = self._progress.add_task(what, total=total or None)
        elif self._shown[number] != what:
            self._progress.reset(self._tasks[number], total=total or None, description=what)
        self._shown[number] = what
        self._progress.update(self._tasks[number], completed=done, total=total or None)

    def end(self, number: int) -> None:
        """What a bar stands for is over: it goes."""
        if number in self._tasks:
            self._progress.remove_task(self._tasks.pop(number))
            del self._shown[number]

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


@contextmanager
def bars() -> Iterator[Tell]:
    """A bar for one run, on the screen's error stream; nothing where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda stage, done, total: None
        return
    shown = Bars(console)
    try:
        yield lambda stage, done, total: shown.move(WHOLE, stage, done, total)
    finally:
        shown.close()
