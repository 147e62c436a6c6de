"""ORL faces: forty people, ten photographs each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from privbench.data.filed import Decoded, Filed
from privbench.data.images import stacked
from privbench.data.packed import arrays
from privbench.errors import DataError

PACKED = "orl_faces.npz"


@dataclass(frozen=True, kw_only=True)
class Orl(Filed):
    """400 grey faces of 40 people; inputs ``(n, 1, 112, 92)``; no official split.

    Source: Samaria, Harter: Parameterisation of a stochastic model for human face identification,
    1994, https://doi.org/10.1109/ACV.1994.341300. Free to use with credit to Olivetti Research
    Laboratory. They are photographs of real people: for research on the methods only.
    """

    name: ClassVar[str] = "orl"
    folders: ClassVar[tuple[str, ...]] = ("orl-faces", "orl_faces", "att_faces")
    files: ClassVar[str] = (
        f"the original folders s1/ to s40/ of PGM images, or {PACKED} (images, subject)"
    )

    @classmethod
    def read(cls, folder: Path) -> Decoded:
        """From one file of arrays, else from the original images."""
        if (folder / PACKED).is_file():
            return _arrays(folder / PACKED)
        people = _numbered(folder, r"s(\d+)")
        if not people:
            raise DataError(
                f"'{folder}' holds neither {PACKED} nor folders s1/ …; expected {cls.files}"
            )
        shots = [_numbered(person, r"(\d+)\.pgm") for person in people]
        for person, files in zip(people, shots, strict=True):
            if not files:
                raise DataError(f"'{person}' is empty; expected 1.pgm to 10.pgm: get it anew")
        x = stacked([file for files in shots for file in files])
        return Decoded(x, np.repeat(np.arange(len(people)), [len(files) for files in shots]))


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Entries whose whole name fits, in the order of their numbers."""
    found = ((re.fullmatch(pattern, entry.name), entry) for entry in folder.iterdir())
    return [entry for _, entry in sorted((int(match[1]), entry) for match, entry in found if match)]


def _arrays(file: Path) -> Decoded:
    images, subject = arrays(file, "images", "subject")
    if images.dtype != np.uint8 or images.ndim != 3 or subject.shape != images.shape[:1]:
        raise DataError(
            f"'{file}' holds images {images.dtype} {images.shape} and subject {subject.shape}; expected "
            "uint8 (n, height, width) and (n,)"
        )
    return Decoded(images[:, None], subject.astype(np.int64))
