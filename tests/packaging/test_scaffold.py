"""The scaffold, and that README and docs say of it what is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from privbench.errors import UsageError
from privbench.scaffold import scaffold

HOME = Path(__file__).resolve().parents[2]
STEPS = [
    "privbench plugins new attack confidence",
    "pip install -e ./confidence-attack",
    "privbench attack=confidence",
    "privbench plugins check confidence",
]


def _blocks(file: str, heading: str) -> list[str]:
    """Code blocks of a section."""
    text = (HOME / file).read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return [block.strip() for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    scaffold("confidence", tmp_path)
    return tmp_path / "confidence-attack"


@pytest.mark.parametrize(
    ("file", "heading"),
    [
        ("README.md", "Your own attack, in one minute"),
        ("docs/adding-an-attack.md", "In one minute"),
    ],
)
def test_the_steps_are_the_same_everywhere(file: str, heading: str, written: Path) -> None:
    """The wheel test follows them to the letter."""
    assert _blocks(file, heading)[0].splitlines() == STEPS
    assert written.name == "confidence-attack"


def test_the_docs_show_what_is_written(written: Path) -> None:
    code = (written / "confidence_attack" / "confidence.py").read_text()
    config = (written / "confidence_attack" / "conf" / "attack" / "confidence.yaml").read_text()
    _, shown, registered = _blocks("docs/adding-an-attack.md", "In one minute")
    assert code.rstrip().endswith(shown)
    assert config.strip() == registered
    test = (written / "tests" / "test_confidence.py").read_text()
    assert test.strip() == _blocks("docs/adding-an-attack.md", "Conformance")[0]
    project = tomllib.loads((written / "pyproject.toml").read_text())["project"]
    entry = tomllib.loads(_blocks("docs/adding-an-attack.md", "Shipping it")[0])["project"]
    assert entry["entry-points"] == project["entry-points"]


def test_what_to_do_next_is_said_and_runs_in_the_same_folder(tmp_path: Path) -> None:
    said = scaffold("two_words", tmp_path)
    assert "pip install -e ./two-words-attack && privbench attack=two_words" in said
    assert (tmp_path / "two-words-attack" / "two_words_attack" / "two_words.py").is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("conf", r"conf.py would lie beside the package conf; .* for example my_conf"),
        ("lira", r"attack=lira is there already, brought by 'privbench'.* for example my_lira"),
        ("view", r"its class View would hide"),
        ("membership_guess", r"its class MembershipGuess would hide"),
        ("null", r"attack=null is read as a value"),
        ("class", r"expected lower_case"),
        ("__init__", r"expected lower_case"),
        ("Über", r"expected lower_case"),
    ],
)
def test_names_that_would_break_something_are_refused(
    name: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        scaffold(name, tmp_path)
    assert not list(tmp_path.iterdir())
