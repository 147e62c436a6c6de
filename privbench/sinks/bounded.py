"""A command of somebody else's, that gets so many seconds and no more."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

POLL = 0.02  # s, between two looks at a command that runs


class Ended(NamedTuple):
    """How a command ended; ``code`` is None where it was stopped."""

    code: int | None
    text: str


class Command:
    """A Python module that runs as a process of its own, and ends with the block at the latest.

    Args:
        words: module and arguments, after ``python -m``.
        env: its environment.
        cwd: its current folder, which is not searched for modules.
        said: file for what it prints. No pipe: that would stay open as long as a grandchild lives.
    """

    def __init__(self, *words: str, env: Mapping[str, str], cwd: Path, said: Path) -> None:
        self._said = said
        with said.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", *words],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def tell(self, line: str) -> None:
        """Hand over one line, short enough for a pipe's buffer; nobody waits for an answer."""
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()

    def finish(self, seconds: float, hopeless: Callable[[str], bool] | None = None) -> Ended:
        """Say that no more lines come, and wait.

        Args:
            seconds: how long, at most.
            hopeless: looks at what was said so far; True = waiting longer is of no use.
        """
        end = time.monotonic() + seconds
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        while True:
            try:
                return Ended(self._process.wait(timeout=POLL), self._text())
            except subprocess.TimeoutExpired:
                given_up = hopeless is not None and hopeless(self._text())
                if given_up or time.monotonic() > end:
                    self._process.kill()
                    self._process.wait()
                    return Ended(None, self._text())

    def _text(self) -> str:
        """All that it said so far."""
        return self._said.read_text(encoding="utf-8", errors="replace")
