"""Files that may be packed, and may be damaged."""

from __future__ import annotations

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from privbench.errors import DataError

ENDINGS = ("", ".gz", ".xz")
BROKEN = (
    OSError, EOFError, ValueError, TypeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip


def there(folder: Path, name: str) -> Path | None:
    """The file of that name, plain or packed."""
    places = (folder / f"{name}{ending}" for ending in ENDINGS)
    return next((place for place in places if place.is_file()), None)


def needed(folder: Path, name: str) -> Path:
    """As ``there``, for a file that must be.

    Raises:
        DataError: it is not there.
    """
    found = there(folder, name)
    if found is None:
        held = sorted(entry.name for entry in folder.iterdir())
        more = f" and {len(held) - 6} more" if len(held) > 6 else ""
        raise DataError(
            f"'{folder}' has no file {name} (plain, .gz or .xz); it holds "
            f"{', '.join(held[:6]) or 'nothing'}{more}: put it there, or name another data.root"
        )
    return found


def unpacked(file: Path) -> bytes:
    """Everything in a file.

    Raises:
        DataError: it cannot be read.
    """
    with mended(file):
        content = file.read_bytes()
        if file.suffix == ".gz":
            return gzip.decompress(content)
        return lzma.decompress(content) if file.suffix == ".xz" else content


def arrays(file: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Some arrays of an .npz file; pickled content is refused.

    Raises:
        DataError: one is not there, or cannot be read.
    """
    with mended(file), file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        missing = [name for name in names if name not in stored.files]
        if missing:
            raise ValueError(f"expected {', '.join(names)}; it holds {', '.join(stored.files)}")
        return tuple(stored[name] for name in names)


@contextmanager
def mended(file: Path) -> Iterator[None]:
    """Whatever goes wrong while a file is read becomes a sentence that names it."""
    try:
        yield
    except BROKEN as cause:
        raise DataError(
            f"'{file}' cannot be read ({cause}): it is damaged or cut short; get it anew"
        ) from cause
