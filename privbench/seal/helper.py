"""The harness' side of the helper process: start it, hand it folders, answer queries, end it."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from privbench.contract import told
from privbench.errors import AttackError, PrivbenchError

_START = (
    "import sys; sys.path[:] = sys.argv[1:]; import runpy; "
    "runpy.run_module('privbench.seal', run_name='__main__', alter_sys=True)"
)
"""``python -m privbench.seal`` that finds the same privbench as the harness, installed or not."""

Answer = Callable[[int, str], None]
"""Answers the query in the file of that name, for the view of that number, in place."""


class Helper:
    """One helper process, started when first needed; requests of several threads queue up."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.RLock()

    def start(self) -> None:
        """Start it without waiting until it is ready. Does nothing where it runs already."""
        with self._turn:
            if self._process is not None and self._process.poll() is None:
                return
            self.close()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, *import_path()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is the harness' to handle
            )

    def run(self, folder: Path, answer: Answer) -> int:
        """Have one fork do the job that lies in ``folder``.

        Returns:
            its exit code, or minus the number of the signal that killed it.

        Raises:
            AttackError: the helper itself ended.
        """
        with self._turn:
            try:
                self.start()
                self._write({"folder": str(folder), "path": import_path()})
                while True:
                    line = self._read()
                    if "done" in line:
                        return int(line["done"])
                    if "progress" in line:
                        told(*line["progress"])
                        continue
                    self._write(_answered(answer, line))
            except BaseException:
                self.close()  # it and we no longer agree on whose turn it is
                raise

    def close(self) -> None:
        """End it, and what it is running."""
        process, self._process = self._process, None
        if process is None or process.stdin is None or process.stdout is None:
            return
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _write(self, line: dict[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.write(json.dumps(line).encode() + b"\n")
            except BrokenPipeError:
                raise self._gone() from None

    def _read(self) -> dict[str, Any]:
        if self._process is not None and self._process.stdout is not None:
            line = self._process.stdout.readline()
            if line.endswith(b"\n"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise self._gone()

    def _gone(self) -> AttackError:
        code = None if self._process is None else self._process.wait()
        return AttackError(
            f"the sealed helper process ended ({code_words(code)}) while it was needed; "
            "expected it to wait for requests: see its words above, or type seal=inline"
        )


@functools.cache
def shared_helper(harness: int) -> Helper:
    """The helper of the process of that number (a forked worker has its own).

    It lives as long as the process: starting it takes seconds, and a study runs many attacks.
    """
    helper = Helper()
    atexit.register(_close_own, helper, harness)
    return helper


def import_path() -> list[str]:
    """Where the harness finds modules, as absolute paths."""
    return [os.path.abspath(entry) for entry in sys.path]


def code_words(code: int | None) -> str:
    """An exit code in words."""
    if code is None or code >= 0:
        return f"exit status {code}"
    names = {member.value: member.name for member in signal.Signals}
    return f"killed by {names.get(-code, f'signal {-code}')}"


def _answered(answer: Answer, line: dict[str, Any]) -> dict[str, str]:
    try:
        answer(int(line["view"]), str(line["query"]))
    except PrivbenchError as refusal:
        return {"refused": str(refusal)}
    return {"answered": str(line["query"])}


def _close_own(helper: Helper, harness: int) -> None:
    if os.getpid() == harness:
        helper.close()
