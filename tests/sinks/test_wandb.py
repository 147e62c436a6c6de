"""The real W&B client: what it writes offline, what arrives, and what an outage costs (nothing)."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import SECRET
from loopback import Loopback, served

from privbench.report.columns import COLUMNS
from privbench.sinks.base import Mirror
from privbench.sinks.rows import row_of
from privbench.sinks.wandb import WandbSink

Reader = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    with served() as memory:
        monkeypatch.setenv("WANDB_BASE_URL", memory.url)
        yield memory


def _place(mirror: Mirror) -> Path:
    return mirror.folder / "sinks" / "wandb"


def _folder(mirror: Mirror, key: str) -> Path:
    (found,) = _place(mirror).glob(f"offline-run-*-{key}")
    return found


def _everything(folder: Path) -> bytes:
    return b"\n".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def _summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for record in records:
        told |= record.get("summary", {}).get("update", {})
    return {name: value for name, value in told.items() if not name.startswith("_")}


@pytest.mark.slow
def test_an_offline_run_read_back_holds_the_scores_to_the_last_digit(
    mirror: Mirror, read_back: Reader
) -> None:
    said = WandbSink().publish(mirror)
    assert said.endswith(f"to upload: wandb sync {_place(mirror)}") and "5 runs" in said
    row = row_of(mirror.reports[0])
    records = read_back(_folder(mirror, row.key))
    assert _summary(records) == row.summary
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert (run["run_group"], run["job_type"]) == ("compare", "centralized")
    config = run["config"]["update"]
    assert (config["attack"], config["seed"]) == ("lira", 3)
    assert config["settings"]["attack"]["mode"] == "online"
    points = [r["history"]["item"] for r in records if r["type"] == "history"]
    told = {"roc/" + name: list(values) for name, values in row.curves[0].columns.items()}
    assert {name: [point[name] for point in points] for name in told} == told
    assert SECRET.encode() not in _everything(mirror.folder)


def test_an_online_study_arrives_whole(mirror: Mirror, server: Loopback) -> None:
    said = WandbSink(mode="online").publish(mirror)
    assert said == f"wandb: 5 runs at {server.url}/someone/privbench"
    assert server.unknown == []
    for report in mirror.reports:
        row = row_of(report)
        run = server.runs[row.key]
        assert {k: v for k, v in run.summary.items() if k in row.summary} == row.summary
        assert run.variables["groupName"] == "compare" and run.variables["jobType"] == row.kind
        assert run.exitcode == int(row.failed)
    curve = row_of(mirror.reports[0]).curves[0].columns["tpr"]
    history = server.runs[row_of(mirror.reports[0]).key].history
    assert [history[step]["roc/tpr"] for step in sorted(history)] == list(curve)

    (study,) = [run for run in server.runs.values() if run.variables["jobType"] == "study"]
    (table,) = [json.loads(body) for name, body in study.files.items() if "table" in name]
    assert tuple(table["columns"]) == COLUMNS
    value = table["data"][0][COLUMNS.index("value")]
    assert value == mirror.reports[0].scores[0].value
    assert len([name for name in study.files if name.endswith(".png")]) == 1
    (page,) = [kept for kept in server.artifacts.values() if kept.kind == "report"]
    assert page.committed and b"report without" in page.files["report.html"]
    sent = server.everything()
    assert SECRET.encode() not in sent
    assert socket.gethostname().encode() not in sent or len(socket.gethostname()) < 4


@pytest.mark.slow
def test_private_pictures_leave_only_when_asked_for(mirror: Mirror, server: Loopback) -> None:
    WandbSink(mode="online").publish(replace(mirror, images=True))
    (page,) = [kept for kept in server.artifacts.values() if kept.kind == "report"]
    assert SECRET.encode() in page.files["report.html"]
    (study,) = [run for run in server.runs.values() if run.variables["jobType"] == "study"]
    assert len([name for name in study.files if name.endswith(".png")]) == 2
    WandbSink().publish(mirror)
    assert SECRET.encode() not in _everything(mirror.folder)


@pytest.mark.slow
def test_published_again_a_run_is_replaced(mirror: Mirror, server: Loopback) -> None:
    sink = WandbSink(mode="online")
    sink.publish(mirror)
    first = set(server.runs)
    steps = len(server.runs[row_of(mirror.reports[0]).key].history)
    sink.publish(mirror)
    assert set(server.runs) == first
    assert len(list(_place(mirror).glob("offline-run-*"))) == len(first)
    assert len(server.runs[row_of(mirror.reports[0]).key].history) == steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ({"refuses": 500}, "500"),
        ({"refuses": 401}, "refused"),
        ({"refuses": 403}, "refused"),
        ({"delay": 60.0}, "no answer within 8 s"),
        (None, "refused"),
    ],
)
def test_trouble_costs_neither_a_result_nor_time(
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    read_back: Reader,
    trouble: dict[str, Any] | None,
    reason: str,
) -> None:
    sink = replace(WandbSink(mode="online"), timeout=8.0 if trouble == {"delay": 60.0} else 30.0)
    with served(**(trouble or {})) as memory:
        url = memory.url if trouble else "http://127.0.0.1:9"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        since = time.monotonic()
        said = sink.publish(mirror)
        took = time.monotonic() - since
    assert "5 of 5 runs did not arrive" in said and reason in said
    assert said.endswith(f"to upload it: wandb sync {_place(mirror)}")
    assert took < 2 * sink.timeout  # writing, and then sending
    assert took < 25.0  # where nobody can answer, that is said without waiting for the end
    row = row_of(mirror.reports[0])
    assert _summary(read_back(_folder(mirror, row.key))) == row.summary
    with served() as memory:  # what was kept is sent later, by what was printed
        monkeypatch.setenv("WANDB_BASE_URL", memory.url)
        _sync(_place(mirror))
        assert len(memory.runs) == 5


def _sync(place: Path) -> None:
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "wandb", "sync", str(place)], check=True)


@pytest.mark.slow
def test_without_a_key_the_user_is_told_to_log_in(
    mirror: Mirror, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    said = WandbSink(mode="online").publish(mirror)
    assert "wandb login" in said and server.runs == {}


@pytest.mark.slow
def test_a_single_run_holds_everything_and_belongs_to_its_sweep(
    mirror: Mirror, server: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = tmp_path / "chosen.yaml"
    chosen.write_text("wandb_version: 1\nattack:\n  value: lira\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "agents01")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(chosen))
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    WandbSink(mode="online").publish(replace(mirror, reports=mirror.reports[:1]))
    (run,) = server.runs.values()
    assert run.name == "agents01"
    assert run.variables["sweep"] == "sweep1" and run.variables["project"] == "theirs"
    assert run.summary["leakage/membership/auc"] == mirror.reports[0].scores[0].value
    assert run.config["attack"] == "lira"
    assert [kept.run for kept in server.artifacts.values() if kept.kind == "report"] == ["agents01"]
