"""The command as a user meets it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from privbench import __version__
from privbench.cli import main


def _privbench(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "privbench", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_help_lists_choices_and_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from privbench.cli import main; main(['--help']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'hydra', 'numpy', 'rich')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "host " in done.stdout and "rows of study=compare" in done.stdout


def test_whoever_reads_only_the_beginning_has_enough(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "privbench", "--help"],
            cwd=tmp_path, stdout=closed, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.stderr == ""


def test_a_folder_of_the_users_does_not_break_us_in_silence(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    done = _privbench("--help", cwd=tmp_path)
    hidden = done.returncode == 2 and str(tmp_path / "attacks") in done.stderr
    assert hidden or done.returncode == 0
    assert "Traceback" not in done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"privbench {__version__}\n"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["attack=lirra"], "did you mean 'lira'?"),
        (["--sede"], "unknown flag '--sede'"),
        (["plugins", "lst"], "plugins list"),
        (["report"], "report FOLDER"),
        (["plugins", "new", "attack", "No-Name"], "lower_case"),
    ],
)
def test_wrong_words_give_one_line_and_exit_code_2(
    words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert answer in said and said.count("\n") == 1


def test_a_scaffold_is_a_plug_in_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["plugins", "new", "attack", "first_try"]) == 0
    root = tmp_path / "first-try-attack"
    before = {path: path.read_text() for path in root.rglob("*") if path.is_file()}
    assert root / "first_try_attack" / "conf" / "attack" / "first_try.yaml" in before
    for path, text in before.items():
        if path.suffix == ".py":
            compile(text, str(path), "exec")
    assert main(["plugins", "new", "attack", "first_try"]) == 2
    assert before == {path: path.read_text() for path in root.rglob("*") if path.is_file()}
