"""Somebody else's command gets its time and no more."""

from __future__ import annotations

import os
import time
from pathlib import Path

from privbench.sinks.bounded import Command


def _command(tmp_path: Path, code: str) -> Command:
    (tmp_path / "theirs.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    return Command("theirs", "word", env=env, cwd=tmp_path, said=tmp_path / "said.txt")


def test_what_it_is_given_what_it_says_and_how_it_ends(tmp_path: Path) -> None:
    code = "import sys; print(sys.argv[1], list(sys.stdin)); sys.exit(3)"
    with _command(tmp_path, code) as command:
        command.tell("one")
        command.tell("two")
        ended = command.finish(20.0)
    assert ended == (3, "word ['one\\n', 'two\\n']\n")


def test_it_is_stopped_when_its_time_is_over(tmp_path: Path) -> None:
    with _command(tmp_path, "import time; print('so far', flush=True); time.sleep(60)") as command:
        since = time.monotonic()
        ended = command.finish(1.0)
    assert ended == (None, "so far\n")
    assert time.monotonic() - since < 3.0


def test_it_is_stopped_when_there_is_no_hope(tmp_path: Path) -> None:
    with _command(tmp_path, "import time; print('refused', flush=True); time.sleep(60)") as command:
        ended = command.finish(30.0, lambda said: "refused" in said)
    assert ended.code is None


def test_it_ends_with_the_block(tmp_path: Path) -> None:
    with _command(tmp_path, "import time; time.sleep(60)") as command:
        pass
    assert command._process.returncode is not None


def test_one_that_reads_nothing_is_no_error(tmp_path: Path) -> None:
    with _command(tmp_path, "") as command:
        command._process.wait(timeout=20)
        command.tell("a line")
        assert command.finish(5.0).code == 0
