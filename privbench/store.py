"""Targets, fits and finished rows on disk: got if they are there, made once if not."""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError

from privbench.contract import load_name
from privbench.errors import PluginError, StorageError, UnknownName, UsageError
from privbench.wire import codec

KINDS = ("targets", "fits", "evaluators", "runs")
MANIFEST = "complete.json"
_END = 1 << 20  # bytes at each end of a file that its digest covers: a file cut or never flushed

Make = Callable[[Path], object]
"""Fills an empty folder; what it returns is not used."""


class Store:
    """Entries ``root/kind/fingerprint/``, each whole or absent.

    An entry is made in a folder beside its place and then renamed, under a lock of its own, so that
    two processes make it once and an interrupted one leaves nothing that could be taken for it.
    ``complete.json`` lists its files with size and digest.

    Args:
        root: made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    def folder(self, kind: str, fingerprint: str) -> Path:
        """Where an entry lies, or would lie.

        Raises:
            UsageError: unknown kind.
        """
        if kind not in KINDS:
            raise UsageError(f"a store holds {', '.join(KINDS)}; it has no '{kind}'")
        return self.root / kind / fingerprint

    def has(self, kind: str, fingerprint: str) -> bool:
        """Is the entry there (whole or damaged)?"""
        return self.folder(kind, fingerprint).exists()

    def get_or_make(self, kind: str, fingerprint: str, make: Make, again: bool = False) -> Path:
        """The folder of an entry, checked; made first if it is absent.

        Args:
            make: writes the entry's files into the folder that it is given.
            again: make it anew even if it is there; the old one stays until the new one is whole.

        Raises:
            StorageError: a stored file is missing or cut short, or the folder cannot be written.
            Exception: what ``make`` raises; then there is no entry.
        """
        place = self.folder(kind, fingerprint)
        if place.exists() and not again:
            return check(place)
        try:
            locks = self.root / kind / ".locks"
            locks.mkdir(parents=True, exist_ok=True)
            with FileLock(locks / f"{fingerprint}.lock"):
                if place.exists() and not again:
                    return check(place)
                _make(place, make)
        except (OSError, SafetensorError) as cause:
            if isinstance(cause, OSError) and not self._ours(cause):
                raise
            raise StorageError(
                f"cannot write '{place}': {cause}; expected a folder with room that you may write "
                "to: free some space or type out=FOLDER; what was stored before is untouched"
            ) from cause
        return place

    def _ours(self, cause: OSError) -> bool:
        """Is it about this store, not about a file that ``make`` wanted to read elsewhere?"""
        at = str(cause.filename or self.root)
        root, full = str(self.root), cause.errno in (errno.ENOSPC, errno.EDQUOT)
        return full or at.startswith(root) or root.startswith(at)


def check_writable(root: Path) -> None:
    """Try a folder before anything is computed for it.

    Raises:
        StorageError: it cannot be made or written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(bytes(4096))
    except OSError as cause:
        raise StorageError(
            f"cannot write into '{root}': {cause}; expected a writable folder with space left: choose "
            "another with out=FOLDER"
        ) from cause


def check(place: Path) -> Path:
    """The folder itself, if it holds what its manifest lists.

    Sizes are compared, and digests of the first and last MiB of each file.

    Raises:
        StorageError: naming the file, what was expected and found, and what to type.
    """
    mend = f"type: rm -r '{place}' and run again; this entry alone is made anew"
    try:
        listed = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        facts = [(str(name), int(size), str(digest)) for name, size, digest in listed["files"]]
    except (OSError, ValueError, LookupError, TypeError) as cause:
        raise StorageError(
            f"'{place}' has no readable {MANIFEST}, expected in every stored entry; {mend}"
        ) from cause
    for name, size, digest in facts:
        file = place / name
        if not file.is_file():
            raise StorageError(f"stored file '{file}' is missing, expected {size} bytes; {mend}")
        found = file.stat().st_size
        if found != size:
            raise StorageError(
                f"stored file '{file}' was cut short or changed: it holds {found} bytes, expected "
                f"{size}; {mend}"
            )
        if _digest(file) != digest:
            raise StorageError(
                f"stored file '{file}' was changed: expected digest {digest}, found "
                f"{_digest(file)}; {mend}"
            )
    return place


def _make(place: Path, make: Make) -> None:
    """Make an entry beside its place and move it there. Its lock is held."""
    prefix = f".{place.name}."
    for left in place.parent.glob(f"{prefix}*"):  # of a maker that was killed: we hold its lock
        shutil.rmtree(left, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=prefix, dir=place.parent))
    try:
        make(fresh)
        files = sorted(file for file in fresh.rglob("*") if file.is_file())
        facts = [[f.relative_to(fresh).as_posix(), f.stat().st_size, _digest(f)] for f in files]
        (fresh / MANIFEST).write_text(json.dumps({"files": facts}, indent=1), encoding="utf-8")
        fresh.chmod(0o777 & ~_umask(place.parent))
        if place.exists():
            place.rename(place.parent / f"{prefix}old")
        fresh.rename(place)
    finally:
        for left in place.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)


def _umask(parent: Path) -> int:
    """Permissions that an ordinary folder here lacks (``mkdtemp`` makes private ones)."""
    return ~parent.stat().st_mode & 0o777


def _digest(file: Path) -> str:
    """Digest of the first and last MiB of a file, in milliseconds however large it is."""
    size = file.stat().st_size
    found = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:
        found.update(opened.read(_END))
        if size > _END:
            opened.seek(max(_END, size - _END))
            found.update(opened.read(_END))
    return found.hexdigest()


def fingerprint(*parts: Any) -> str:
    """Sixteen hexadecimal digits that depend on every value, type and tensor bit in ``parts``.

    Independent of the order of mappings, of devices and of the process.

    Args:
        parts: whatever ``wire.codec`` encodes.

    Raises:
        PluginError: as ``codec.encode``.
    """
    found = hashlib.sha256()
    for piece in codec.canonical(parts):
        found.update(piece)
    return found.hexdigest()[:16]


def digest_of_source(thing: Any) -> str:
    """Sixteen hexadecimal digits of the module file that defines a class or a function.

    Args:
        thing: the class or function, or its import name (``package.module.Name``).

    Raises:
        PluginError: it cannot be imported, or its source cannot be found: what is made with it must
            not be stored for other processes.
    """
    found = load_name(thing) if isinstance(thing, str) else thing
    try:
        file = inspect.getsourcefile(found)
        text = Path(file).read_bytes() if file else b""
    except (OSError, TypeError):
        text = b""
    if not text:
        raise PluginError(
            f"no source is found for {thing!r}; expected a class or function in a module file"
        )
    return hashlib.sha256(text).hexdigest()[:16]


@cache
def digest_of_rooms(*rooms: str) -> str:
    """Sixteen hexadecimal digits of the source of some of our rooms (``wire``, ``models``, ...).

    Read once a process, which goes on running what it has imported.

    Raises:
        UnknownName: there is no such room.
    """
    home, found = Path(__file__).parent, hashlib.sha256()
    for room in sorted(rooms):
        files = [home / f"{room}.py"] if (home / f"{room}.py").exists() else []
        files += sorted((home / room).rglob("*.py"))
        if not files:
            known = sorted(p.name for p in home.iterdir() if (p / "__init__.py").exists())
            raise UnknownName(f"privbench has no room '{room}'; it has {', '.join(known)}")
        for file in files:
            text = file.read_bytes()
            found.update(f"{file.relative_to(home).as_posix()} {len(text)}\n".encode() + text)
    return found.hexdigest()[:16]
