"""Weights & Biases: a run a row, a group a study, a job type a regime.

Everything is written offline first, which neither needs nor waits for a network. ``mode=online`` then
hands what was written to the client's own ``wandb sync``, for so many seconds. So an outage costs nothing
but the wait, and what did not arrive is sent later by the same command.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from privbench.errors import StorageError, UsageError
from privbench.sinks.base import Mirror, Sink
from privbench.sinks.bounded import Command, Ended
from privbench.sinks.rows import row_of
from privbench.sinks.wandb_runs import runs_of, shown

if TYPE_CHECKING:
    from privbench.sinks.wandb_log import RunFacts, Work

AT_ONCE = 8  # runs that wandb sync sends at a time

AGENT = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID")
"""How a sweep agent tells which of its runs this is."""

OURS = (*AGENT, "WANDB_RESUME", "WANDB_MODE", "WANDB_SILENT", "WANDB_QUIET")
"""Variables that would change what is set here on purpose."""

BRIEF = {
    "WANDB_ERROR_REPORTING": "false",  # no telemetry
    "WANDB_X_DISABLE_MACHINE_INFO": "true",
    **{f"WANDB_X_{part}_RETRY_MAX": "2" for part in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")},
    "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": "0.5",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "2",
}
"""Settings of the client, unless the user's environment has others: what fails is said soon."""


@dataclass(frozen=True, kw_only=True)
class WandbSink(Sink):
    """Weights & Biases.

    Args:
        mode: ``offline`` writes only; ``online`` also sends.
        project, entity: where runs belong; entity None = the account's own. A sweep agent's come first.
        timeout: seconds for writing, and again for sending.
    """

    name: ClassVar[str] = "wandb"
    package: ClassVar[str] = "wandb"

    mode: str = "offline"
    project: str = "privbench"
    entity: str | None = None
    timeout: float = 60.0  # s

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("offline", "online"):
            raise UsageError(f"sink.wandb.mode={self.mode}; expected offline or online")
        if not self.timeout > 0:
            raise UsageError(f"sink.wandb.timeout={self.timeout}; expected seconds, more than 0")

    def publish(self, mirror: Mirror) -> str:
        """Write offline runs, and send them where ``mode=online``."""
        place = mirror.place(self.name)
        agent = _agent() if len(mirror.reports) == 1 else {}
        sink = replace(
            self,
            project=agent.get("WANDB_PROJECT", self.project),
            entity=agent.get("WANDB_ENTITY", self.entity),
        )
        written = sink._write(mirror, place, agent)
        if self.mode == "online":
            return sink._send(written, place)
        known = f"wandb: {_count(written)} in {place}; to upload: {_by_hand(place)}"
        if agent:
            known += " (the sweep learns nothing until then; sink.wandb.mode=online sends at once)"
        return known

    def _write(self, mirror: Mirror, place: Path, agent: Mapping[str, str]) -> list[Path]:
        """The folders of the offline runs.

        Raises:
            StorageError: the client did not end well.
        """
        env = _environment(place, agent)
        said = place / "write.log"
        with Command("privbench.sinks.wandb_log", env=env, cwd=place, said=said) as client:
            rows = [row_of(report) for report in mirror.reports]
            runs = runs_of(mirror, rows, agent.get("WANDB_RUN_ID", ""))
            client.tell(self._work(runs[:-1], mirror, place / "rows.json"))
            last: RunFacts = {**runs[-1], "shown": shown(mirror, rows, place, runs[-1]["id"])}
            client.tell(self._work([last], mirror, place / "last.json"))
            ended = client.finish(self.timeout)
        if ended.code != 0:
            stopped = (
                f"was stopped after {self.timeout:g} s; allow more with sink.wandb.timeout=..."
            )
            words = (ended.text.strip().splitlines() or ["it said nothing"])[-1]
            why = stopped if ended.code is None else f"ended with: {words}"
            raise StorageError(f"the W&B client {why} (all of it: {said})")
        return [next(iter(place.glob(f"offline-run-*-{run['id']}"))) for run in runs]

    def _work(self, runs: list[RunFacts], mirror: Mirror, file: Path) -> str:
        """Put runs into a file for the client; its path."""
        work: Work = {
            "root": str(file.resolve().parents[1]),
            "project": self.project,
            "entity": self.entity,
            "group": mirror.study or "runs",
            "runs": runs,
        }
        file.write_text(json.dumps(work), encoding="utf-8")
        return str(file.resolve())

    def _send(self, written: list[Path], place: Path) -> str:
        """Hand the runs to ``wandb sync``; what arrived has a marker beside it."""
        env = _environment(place, {})
        words = ["wandb", "sync", "-n", str(AT_ONCE), *(str(path.resolve()) for path in written)]
        with Command(*words, env=env, cwd=Path.cwd(), said=place / "sync.log") as client:
            ended = client.finish(self.timeout, lambda said: _hopeless(said, len(written)))
        left = [path for path in written if not any(path.glob("*.wandb.synced"))]
        if not left:
            where = re.search(r"View run .* at (\S+)/runs/", ended.text)
            return f"wandb: {_count(written)} at {where[1] if where else self.project}"
        return (
            f"wandb: {len(left)} of {_count(written)} did not arrive ({_reason(ended, self.timeout)}); "
            f"everything is kept in {place}, to upload it: {_by_hand(place)}"
        )


def _agent() -> dict[str, str]:
    """What a sweep agent says about the run it waits for; empty where there is none."""
    told = {name: os.environ.get(name, "") for name in (*AGENT, "WANDB_PROJECT", "WANDB_ENTITY")}
    driven = told["WANDB_SWEEP_ID"] and told["WANDB_RUN_ID"]
    return {name: value for name, value in told.items() if value} if driven else {}


def _environment(place: Path, agent: Mapping[str, str]) -> dict[str, str]:
    """The client's environment: the user's, but for what would lead it away from this folder."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    own = {
        "WANDB_DIR": str(place.resolve().parent),
        "WANDB_DATA_DIR": str(place.resolve() / "data"),
    }
    return {**BRIEF, **kept, **agent, **own}


def _hopeless(said: str, runs: int) -> bool:
    """As many errors as runs are sent at a time, and none was accepted."""
    return "View run" not in said and said.count("ERROR") >= min(runs, AT_ONCE)


def _reason(ended: Ended, seconds: float) -> str:
    """Why runs did not arrive, in the client's words where it has some."""
    errors = re.findall(r"(?:ERROR|Error:) (.+)", ended.text)
    return errors[-1].strip() if errors else f"no answer within {seconds:g} s"


def _by_hand(place: Path) -> str:
    """What to type."""
    return f"wandb sync {shlex.quote(str(place))}"


def _count(written: list[Path]) -> str:
    return "1 run" if len(written) == 1 else f"{len(written)} runs"
