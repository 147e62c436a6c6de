"""The wheel beside a stranger's distribution, in an environment that knows no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from privbench.checks.attack_rules import RULES

HOME = Path(__file__).resolve().parents[2]
PACKAGES = ("privbench", "attacks", "defenses", "conf")
BESIDE = ("pyproject.toml", "setup.py", "README.md", "LICENSE")

Command = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(300)]


def _run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


def _wheel(source: Path, out: Path) -> Path:
    """Build without network and without touching the source."""
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    done = _run(
        sys.executable, "-m", "pip", "wheel", "-q", *offline, "-w", out, source, cwd=source.parent
    )
    assert done.returncode == 0, done.stderr
    return next(iter(out.glob("*.whl")))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Ours and the stranger's."""
    root = tmp_path_factory.mktemp("build")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    ours = root / "ours"
    for package in PACKAGES:
        shutil.copytree(HOME / package, ours / package, ignore=ignore)
    for name in BESIDE:
        if (HOME / name).exists():
            shutil.copy(HOME / name, ours / name)
    theirs = shutil.copytree(HOME / "tests" / "third_party", root / "theirs", ignore=ignore)
    return _wheel(ours, root / "one"), _wheel(theirs, root / "two")


@pytest.fixture(scope="module")
def privbench(
    tmp_path_factory: pytest.TempPathFactory, wheels: tuple[Path, Path]
) -> tuple[Command, Path]:
    """The installed command, to be run from a foreign folder; and its environment."""
    root = tmp_path_factory.mktemp("installed")
    env = root / "env"
    venv.create(env, symlinks=True)
    bin_ = env / ("Scripts" if os.name == "nt" else "bin")
    offline = ("--no-index", "--no-deps", "--disable-pip-version-check", "-q")
    pip = (sys.executable, "-m", "pip", "--python", bin_ / "python", "install", *offline)
    done = _run(*pip, *wheels, cwd=root)
    assert done.returncode == 0, done.stderr
    # Dependencies come from the environment that runs the tests; its .pth files stay unread.
    purelib = next((env / "lib").glob("python*/site-packages"))
    (purelib / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    foreign = root / "elsewhere"
    foreign.mkdir()

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return _run(bin_ / "privbench", *words, cwd=foreign)

    return command, env


def test_the_wheel_holds_every_file_of_ours(wheels: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as wheel:
        held = set(wheel.namelist())
    for package in PACKAGES:
        inside = "privbench/conf" if package == "conf" else package
        for path in (HOME / package).rglob("*"):
            if path.suffix in (".py", ".yaml") or path.name == "py.typed":
                assert f"{inside}/{path.relative_to(HOME / package).as_posix()}" in held


def test_both_are_listed_with_their_provider(privbench: tuple[Command, Path]) -> None:
    command, _ = privbench
    done = command("plugins", "list")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "[privbench-example]" in lines["example_confidence"]
    assert "[privbench-example]" in lines["example_rounding"]
    assert "[privbench]" in lines["lira"]


def test_the_strangers_attack_runs_by_name(privbench: tuple[Command, Path]) -> None:
    command, env = privbench
    done = command("attack=example_confidence", "regime.epochs=2", "out=runs")
    assert done.returncode == 0, done.stderr
    assert "example_confidence" in done.stdout
    reports = list((env.parent / "elsewhere" / "runs" / "runs").glob("*/report.json"))
    assert len(reports) == 1


def test_the_strangers_study_gives_a_table(privbench: tuple[Command, Path]) -> None:
    command, env = privbench
    done = command("study=example", "regime.epochs=2", "out=runs")
    assert done.returncode == 0, done.stderr
    table = env.parent / "elsewhere" / "runs" / "studies" / "example+regime.epochs=2" / "table.csv"
    assert "example_confidence" in table.read_text()


def test_the_strangers_defense_is_chosen_by_name(privbench: tuple[Command, Path]) -> None:
    command, env = privbench
    words = (
        "regime=slicenet",
        "regime.epochs=2",
        "threat=host",
        "threat.seat=0",
        "attack=ridge_decoder",
        "victims=8",
    )
    done = command(*words, "defense=[example_rounding]", "out=runs")
    assert done.returncode == 0, done.stderr
    tables = (env.parent / "elsewhere" / "runs" / "runs").glob("*/table.csv")
    assert any("example_rounding" in table.read_text() for table in tables)


def test_the_readme_makes_a_plug_in(
    privbench: tuple[Command, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line as it stands there; pip alone is kept from the network."""
    _, env = privbench
    section = (HOME / "README.md").read_text().split("## Your own attack, in one minute")[1]
    lines = section.split("```")[1].strip().splitlines()
    assert len(lines) == 4
    offline = "install --no-index --no-deps --no-build-isolation -q"
    pip = tmp_path / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(
        f'#!/bin/sh\n[ "$1" = install ] && shift\n'
        f'exec "{sys.executable}" -m pip --python "{env}/bin/python" {offline} "$@"\n'
    )
    pip.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pip.parent}:{env}/bin:{os.environ['PATH']}")
    for line in lines:
        done = _run("sh", "-c", line, cwd=tmp_path)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    assert done.stdout.count("ok      confidence-") == 1 + len(RULES)  # one: it can be built
