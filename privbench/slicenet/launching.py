"""Starts the processes of a crowd, watches them, and puts together what they heard."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from privbench.contract import told
from privbench.errors import TrainingError

LOOK = 0.05  # seconds between two looks at the processes
GRACE = 3.0  # seconds for others to say why they failed, once one has ended

_START = (
    "import sys; sys.path[:] = sys.argv[2:]; import runpy; "
    "runpy.run_module('privbench.slicenet.distributed', run_name='__main__', alter_sys=True)"
)
"""``python -m privbench.slicenet.distributed`` that finds the same modules as this process."""


def launch(folder: Path, world: int, steps: int) -> None:
    """Run all processes on this machine, to their end.

    Raises:
        TrainingError: one of them ended before it was done; the others are ended too.
    """
    with ExitStack() as stack:
        processes = [_started(folder, rank, world, stack) for rank in range(world)]
        try:
            _watched(folder, processes, steps)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()


def await_others(folder: Path, world: int, steps: int, patience: float) -> None:
    """Wait until processes that somebody else starts (by torchrun) are done.

    Raises:
        TrainingError: one of them says that it failed, or none got on for ``patience`` seconds
            after the first step.
    """
    print(
        f"waiting for {world} processes; on each machine type, N from 0 to {world - 1}, HOST the first:\n"
        f"  torchrun --nnodes={world} --node-rank=N --nproc-per-node=1 --master-addr=HOST "
        f"--master-port=29500 --max-restarts=0 -m privbench.slicenet.distributed {folder}",
        file=sys.stderr,
    )
    seen, since = 0, time.monotonic()
    while not all((folder / f"done-{rank}").exists() for rank in range(world)):
        failed = [rank for rank in range(world) if (folder / f"failed-{rank}").exists()]
        if failed:
            raise TrainingError(_words(folder, failed[0], None))
        now = progress(folder)
        if now != seen:
            seen, since = now, time.monotonic()
            told(seen, steps)
        if seen and time.monotonic() - since > patience:
            raise TrainingError(
                f"no process got beyond step {seen} of {steps} for {patience:g} s; expected each step "
                "within regime.engine.patience: look at their windows"
            )
        time.sleep(LOOK)


def progress(folder: Path) -> int:
    """Steps that the first process has done."""
    path = folder / "step-0"
    return int.from_bytes(path.read_bytes()[:8], "little") if path.exists() else 0


def _started(folder: Path, rank: int, world: int, stack: ExitStack) -> subprocess.Popen[bytes]:
    words = stack.enter_context((folder / f"words-{rank}").open("wb"))
    store = f"file://{folder.resolve() / 'store'}"
    own = {"RANK": str(rank), "WORLD_SIZE": str(world), "PRIVBENCH_STORE": store}
    if sys.platform == "linux":
        own["GLOO_SOCKET_IFNAME"] = "lo"  # the machine's own name need not lead anywhere
    path = [os.path.abspath(entry) for entry in sys.path]
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _START, str(folder.resolve()), *path],
        env={**os.environ, **own},
        stdin=subprocess.DEVNULL,
        stdout=words,
        stderr=words,
    )
    (folder / f"process-{rank}").write_text(str(process.pid))
    return process


def _watched(folder: Path, processes: Sequence[subprocess.Popen[bytes]], steps: int) -> None:
    while True:
        codes = [process.poll() for process in processes]
        told(progress(folder), steps)
        broken = [rank for rank, code in enumerate(codes) if code not in (None, 0)]
        if broken:
            killed = [rank for rank in broken if (codes[rank] or 0) < 0]
            if not killed:  # who says "another went away" is not the one to name
                killed = _late(processes)
            rank = (killed or broken)[0]
            raise TrainingError(_words(folder, rank, processes[rank].poll()))
        if all(code == 0 for code in codes):
            return
        time.sleep(LOOK)


def _late(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Processes that a signal ends within a moment; those that still wait are not at fault."""
    end = time.monotonic() + GRACE
    while time.monotonic() < end:
        killed = [rank for rank, each in enumerate(processes) if (each.poll() or 0) < 0]
        if killed or all(each.poll() is not None for each in processes):
            return killed
        time.sleep(LOOK)
    return []


def _words(folder: Path, rank: int, code: int | None) -> str:
    """Why a process ended, in one sentence."""
    path = folder / f"failed-{rank}"
    if path.exists():
        why = path.read_text()
    elif code is not None and code < 0:
        why = f"it was ended by signal {-code}"
    else:
        written = folder / f"words-{rank}"
        lines = written.read_text(errors="replace").split("\n") if written.exists() else []
        why = next((line for line in reversed(lines) if line.strip()), f"exit status {code}")
    parties = "coordinator and releaser" if rank == 0 else "of devices"
    return f"process {rank} ({parties}) ended at step {progress(folder)}: {why}"
