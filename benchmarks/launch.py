"""A command in a process of its own: how long it takes, and how much memory it and its children do.

Linux and macOS. Where there is no /proc, the memory is that of the largest single process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.1  # s between two looks; a shorter peak is not seen
LIMIT = 1800.0  # s after which a command counts as stuck
PROC = Path("/proc")


@dataclass(frozen=True)
class Launch:
    """What a command cost.

    ``resident`` adds up what is resident in every process of the tree, at its peak: pages that two
    share count twice, so it is an upper bound. ``proportional`` is the same moment with shared pages
    counted once (None where the system does not tell). ``largest``: peak of the largest process.
    """

    seconds: float
    resident: int | None  # bytes
    proportional: int | None  # bytes
    largest: int  # bytes


def launch(
    command: Sequence[str], folder: Path, limit: float = LIMIT, interval: float = INTERVAL
) -> Launch:
    """Run a command in ``folder`` and watch it until it ends; what it prints goes to ``output.log``.

    Args:
        limit: seconds after which it is ended.
        interval: seconds between two looks, the error of ``seconds`` too.

    Raises:
        RuntimeError: it ended with an exit code other than 0, or not within ``limit`` seconds.
    """
    log = folder / "output.log"
    plain = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    with log.open("w") as file:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(command), cwd=folder, env=plain, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            found = _watched(process, start, limit, interval)
        finally:
            _ended(process)
    if process.returncode != 0:
        tail = " / ".join(log.read_text().strip().splitlines()[-3:])
        raise RuntimeError(
            f"'{' '.join(command)}': expected exit code 0, got {process.returncode}: {tail}"
        )
    return found


def _watched(
    process: subprocess.Popen[bytes], start: float, limit: float, interval: float
) -> Launch:
    """Look at the tree until its root ends.

    Where there is a /proc the kernel's own record of the peak is not used: it starts with what the
    parent held when it forked, and that is a benchmark with torch in it.
    """
    resident, largest, proportional = 0, 0, None
    while True:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - start
        if done:
            process.returncode = os.waitstatus_to_exitcode(status)
            break
        if seconds > limit:
            raise RuntimeError(f"it had not ended after {limit:.0f} s; output.log says how far")
        tree = _tree(process.pid) if PROC.is_dir() else []
        held = [_resident(pid) for pid in tree]
        largest = max([largest, *held])
        if sum(held) > resident:
            resident, proportional = sum(held), _proportional(tree)
        time.sleep(interval)
    unit = 1 if sys.platform == "darwin" else 1024
    return Launch(seconds, resident or None, proportional, largest or usage.ru_maxrss * unit)


def _ended(process: subprocess.Popen[bytes]) -> None:
    """After an interrupt or the limit: let it close its own helper, then make sure."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tree(root: int) -> list[int]:
    """The process and all its descendants that live now."""
    parents = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended since the folder was listed
            parents[int(entry.name)] = int(after_name[1])
    tree, added = [root], {root}
    while added:
        added = {pid for pid, parent in parents.items() if parent in added}
        tree += sorted(added)
    return tree


def _resident(pid: int) -> int:
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0  # it has ended
    return pages * os.sysconf("SC_PAGE_SIZE")


def _proportional(tree: Sequence[int]) -> int | None:
    total = 0
    for pid in tree:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except OSError:
            return None
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total or None
