"""What the engine's benchmark claims follows from what it timed, and it times what it says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from privbench.wire.transcript import Transcript

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``benchmarks/engine.py``, imported as ``run.py`` does."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("figure", "launch", "engine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    loaded = importlib.import_module("engine")
    for name in ("figure", "launch", "engine"):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    return loaded


def test_a_figure_is_met_up_to_its_limit_alone(
    engine: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ratio(wall: float) -> object:
        return engine.Ratio(wall, wall, wall, wall, 0.6)

    heard = {"no tap": 1.02, "messages": 1.26, "messages and weights": 1.4}
    monkeypatch.setattr(engine, "listened", lambda folder: {n: ratio(w) for n, w in heard.items()})
    monkeypatch.setattr(engine, "sized", lambda: {10: ratio(1.0), 100: ratio(0.9)})
    monkeypatch.setattr(engine, "memory", lambda folder: engine.Memory(100, 109, 10, 0))
    none, messages, weights, flat = engine.steps(tmp_path)
    assert [each.verdict() for each in (none, messages, weights)] == ["met", "MISSED", "met"]
    assert flat.value == pytest.approx(1 / 0.9 - 1) and flat.met
    (longer,) = engine.longer(tmp_path)
    assert longer.words() == "9.0 %" and longer.met


@pytest.mark.slow
def test_every_message_is_recorded_and_weights_only_where_they_are_asked_for(
    engine: ModuleType, tmp_path: Path
) -> None:
    kinds = {}
    for name, tap in (("apart", engine.Apart), ("all", engine.Recorder)):
        folder = tmp_path / name
        folder.mkdir()
        tap = tap(folder, engine.EVERYTHING)
        crowd = engine.crowd(3, engine.Wire((tap,)), steps=2, batch=2)
        for step in range(2):
            crowd.step(step, engine.samples(2), engine.owners(3, step, 2))
        tap.close()
        found = Transcript(folder)
        kinds[name] = [(m.step, m.kind, m.layer, m.sender) for m in found.messages]
        assert found.steps_with_state == (() if name == "apart" else (0, 1))
        assert len(list(folder.glob("lent-*"))) == (2 if name == "apart" else 0)
    assert kinds["apart"] == kinds["all"]
    traffic = {"activation", "gradient", "stem_gradient", "tail_gradient"}
    weights = {"stem_weights", "tail_weights", "slice_weights"}
    assert {kind for _, kind, _, _ in kinds["all"]} == traffic | weights
