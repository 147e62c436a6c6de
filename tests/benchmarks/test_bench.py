"""What is measured is reported as it is: missed, broken, or not what it claims to be."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
NAMES = (
    "figure",
    "launch",
    "compare",
    "decoder",
    "shadows",
    "membership",
    "scoring",
    "seal",
    "inversion",
    "run",
)

FAKE = """
import pathlib, sys
entries = {entries!r} if "again=true" in sys.argv else ["targets", "fits", "runs"]
for kind in entries:
    folder = pathlib.Path("runs", kind, "a")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("report.json" if kind == "runs" else "complete.json")).write_text("")
folder = pathlib.Path("runs/studies/compare")
folder.mkdir(parents=True, exist_ok=True)
value = {value!r} if "again=true" in sys.argv else "0.5"
(folder / "table.csv").write_text("row,value,attack_seconds\\n1," + value + "," + str(len(sys.argv)))
"""


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``benchmarks/run.py``, imported as it is when run as a file."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    loaded = importlib.import_module("run")
    for name in NAMES:  # forgotten again afterwards: these names are common
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    return loaded


def _measure(bench: ModuleType, name: str, value: float | None, limit: float = 1.0) -> object:
    def run() -> tuple[object, ...]:
        if value is None:
            raise ValueError("no luck")
        return (bench.Figure(what=name, asked="under 1", value=value, met=value < limit),)

    return bench.Measurement(name=name, what=name, asked="under 1", run=run)


def test_a_missed_and_a_broken_one_are_reported_and_the_others_run(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = (_measure(bench, "a", None), _measure(bench, "b", 2.0), _measure(bench, "c", 0.5))
    monkeypatch.setattr(bench, "measurements", lambda folder: some)
    assert bench.main([], tmp_path) == 1
    lines = (tmp_path / "results.md").read_text().splitlines()
    verdicts = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert "FAILED" in verdicts["a"] and "no luck" in verdicts["a"]
    assert "MISSED" in verdicts["b"]
    assert "| met" in verdicts["c"]


def test_naming_one_keeps_the_others_and_replaces_its_own(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (_measure(bench, "a", 0.25), _measure(bench, "b", 0.5))
    monkeypatch.setattr(bench, "measurements", lambda folder: first)
    assert bench.main([], tmp_path) == 0
    second = (_measure(bench, "a", 0.75), _measure(bench, "b", None))
    monkeypatch.setattr(bench, "measurements", lambda folder: second)
    assert bench.main(["b"], tmp_path) == 1
    groups = json.loads((tmp_path / "results.json").read_text())["groups"]
    assert [group["figures"][0]["value"] for group in groups] == [0.25, None]
    assert bench.main(["d"], tmp_path) == 2


@pytest.mark.parametrize(
    ("entries", "value", "missed"),
    [
        (["runs"], "0.5", ""),
        (["runs", "fits"], "0.5", "targets and fits made anew"),
        ([], "0.5", "rows taken from the first run"),
        (["runs"], "0.6", "lines of the table that differ"),
    ],
)
def test_a_second_run_that_did_something_else_is_found_out(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entries: list[str],
    value: str,
    missed: str,
) -> None:
    compare = sys.modules["compare"]
    script = FAKE.format(entries=entries, value=value)
    monkeypatch.setattr(compare, "program", lambda: [sys.executable, "-S", "-c", script])
    found = [figure.what for figure in compare.Comparison(tmp_path).again() if not figure.met]
    assert found == ([f"the same: {missed}"] if missed else [])


def test_memory_of_children_counts_and_a_failing_command_is_named(
    bench: ModuleType, tmp_path: Path
) -> None:
    launch = sys.modules["launch"].launch
    hold = "import time; held = bytearray(60_000_000); time.sleep(0.6)"
    both = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {hold!r}]); {hold}; p.wait()"
    run = launch([sys.executable, "-c", both], tmp_path)
    assert run.seconds > 0.6
    if run.resident is not None:
        assert run.resident > 110_000_000 > run.largest > 60_000_000
    with pytest.raises(RuntimeError, match="got 3: sorry"):
        launch([sys.executable, "-c", "print('sorry'); raise SystemExit(3)"], tmp_path)
    with pytest.raises(RuntimeError, match="had not ended"):
        launch([sys.executable, "-c", "import time; time.sleep(30)"], tmp_path, 0.3)
