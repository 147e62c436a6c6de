"""Images of a run on disk, beside its report.json. They can be private: see ``report.images``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from privbench.errors import StorageError
from privbench.scoring.score import Pictures

FILE = "pictures.safetensors"
PARTS = ("true", "guess", "blind")


def save_pictures(pictures: Sequence[Pictures], folder: Path) -> None:
    """Write them whole into a folder that exists; without any, remove those of an earlier run.

    Raises:
        OSError: the folder cannot be written.
    """
    file, beside = folder / FILE, folder / f".{FILE}"
    if not pictures:
        file.unlink(missing_ok=True)
        return
    tensors = {f"{i}/{part}": getattr(p, part) for i, p in enumerate(pictures) for part in PARTS}
    try:
        save_file(tensors, beside, metadata={"seats": json.dumps([p.seat for p in pictures])})
    except SafetensorError as cause:
        raise OSError(str(cause)) from cause
    beside.replace(file)


def load_pictures(folder: Path) -> tuple[Pictures, ...]:
    """Those that lie in a folder; none where there is no such file.

    Raises:
        StorageError: the file is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return ()
    try:
        with safe_open(file, framework="np") as stored:
            seats = json.loads(stored.metadata()["seats"])
            return tuple(
                Pictures(seat, *(stored.get_tensor(f"{i}/{part}") for part in PARTS))
                for i, seat in enumerate(seats)
            )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as cause:
        raise StorageError(
            f"'{file}' holds no whole pictures ({cause}): run it again with again=true"
        ) from cause
