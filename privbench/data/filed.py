"""Data sets whose files lie below ``data.root``: where they are looked for, and how they are kept."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from privbench.data.openml import Listed, fetched, parts_of
from privbench.data.source import DataSource, Records, checked
from privbench.errors import DataError

Stamp = tuple[tuple[str, int, int], ...]
"""Name, size and time of every file below a folder."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A whole data set as arrays.

    Args:
        x: ``(n, *shape)``, as ``source.checked`` takes them.
        y: ``(n,)``, 0 to k - 1.
        parts: 0 = the official training set, 1 = the official test set; None where there is none.
    """

    x: np.ndarray
    y: np.ndarray
    parts: np.ndarray | None = None

    @classmethod
    def joined(cls, train: Decoded, test: Decoded) -> Decoded:
        """Training and test set, one after the other."""
        if train.x.shape[1:] != test.x.shape[1:]:
            raise DataError(
                f"training inputs have shape {train.x.shape[1:]}, test inputs {test.x.shape[1:]}; "
                "expected one shape: get the files anew"
            )
        parts = np.repeat([0, 1], [len(train.y), len(test.y)])
        return cls(np.concatenate([train.x, test.x]), np.concatenate([train.y, test.y]), parts)


@dataclass(frozen=True, kw_only=True)
class Filed(DataSource):
    """A data set that has a folder of its own below ``data.root``.

    Args:
        root: the folder above it.
    """

    folders: ClassVar[tuple[str, ...]]  # its names; the first that is there counts
    files: ClassVar[str]  # what the first of them holds, for messages

    root: str = ""

    def load(self) -> Records:
        """All records in the order of the files, the training set first."""
        folder = self._folder()
        if folder is None:
            raise DataError(self._missing())
        return _opened(self, folder, stamp(folder))

    @classmethod
    @abstractmethod
    def read(cls, folder: Path) -> Decoded:
        """What the files of a folder hold.

        Raises:
            DataError: a file is missing or damaged.
        """

    def _folder(self) -> Path | None:
        if not self.root:
            return None
        places = (Path(self.root).expanduser() / name for name in self.folders)
        return next((place for place in places if place.is_dir()), None)

    def _missing(self) -> str:
        here = (
            f"'{self.root}' has no folder '{self.folders[0]}'"
            if self.root
            else "data.root is not set"
        )
        if self.root and not Path(self.root).expanduser().is_dir():
            here = f"there is no folder '{self.root}'"
        return (
            f"data={self.name} is read from files, and {here}; type data.root=FOLDER, where "
            f"FOLDER/{self.folders[0]}/ holds {self.files}"
        )


@dataclass(frozen=True, kw_only=True)
class Fetched(Filed):
    """As ``Filed``, for data sets that OpenML has.

    Args:
        download: where there is no folder, fetch them from OpenML. scikit-learn keeps what it
            fetches in ``~/scikit_learn_data`` (or ``$SCIKIT_LEARN_DATA``).
    """

    listed: ClassVar[Listed]

    download: bool = False

    def load(self) -> Records:
        """All records: from files where they are, else from OpenML."""
        if self.download and self._folder() is None:
            return _downloaded(self)
        return super().load()

    @classmethod
    @abstractmethod
    def decode(cls, inputs: np.ndarray, labels: np.ndarray) -> Decoded:
        """Records from OpenML's columns ``(n, columns)`` and labels ``(n,)``, parts aside.

        Raises:
            DataError, ValueError: they are not what the data set holds.
        """

    def _missing(self) -> str:
        return (
            f"{super()._missing()}; or data.download=true, which fetches it from OpenML "
            f"({self.listed.megabytes} MB)"
        )


def stamp(folder: Path) -> Stamp:
    """What changes when a file below the folder does."""
    found = ((file, file.stat()) for file in sorted(folder.rglob("*")) if file.is_file())
    return tuple((str(file), facts.st_size, facts.st_mtime_ns) for file, facts in found)


@lru_cache(maxsize=1)  # a study opens them once a row, and nobody writes into records
def _opened(source: Filed, folder: Path, stamp: Stamp) -> Records:
    found = source.read(folder)
    return checked(found.x, found.y, found.parts, source.records)


@lru_cache(maxsize=1)
def _downloaded(source: Fetched) -> Records:
    bunch = fetched(source.name, source.listed)
    try:
        found = source.decode(bunch.inputs, bunch.labels)
    except (ValueError, TypeError) as cause:
        raise DataError(
            f"what OpenML holds as {source.listed.title} is not data={source.name} ({cause}); type "
            f"data.root=FOLDER, where FOLDER/{source.folders[0]}/ holds {source.files}"
        ) from cause
    parts = parts_of(source.name, source.listed, found.x, found.y)
    return checked(found.x, found.y, parts, source.records)
