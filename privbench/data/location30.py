"""Location-30: where people have been, and what kind of visitor that makes them."""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from privbench.data.filed import Decoded, Filed
from privbench.data.packed import mended, needed, there, unpacked
from privbench.errors import DataError

MEMBER = "bangkok"  # the file in the archive
ARCHIVE = "dataset_location.tgz"
FEATURES, CLASSES = 446, 30


@dataclass(frozen=True, kw_only=True)
class Location30(Filed):
    """5,010 visitors of Bangkok; inputs ``(n, 446)``, 0 or 1; 30 classes; no official split.

    A feature says whether the visitor has been to a region, or to a kind of place; classes are clusters
    of visitors.

    Source: Shokri, Stronati, Song, Shmatikov: Membership inference attacks against machine learning
    models, 2017, https://arxiv.org/abs/1610.05820, from check-ins by Yang, Zhang, Qu: Participatory
    cultural mapping based on collective behavior data in location-based social networks, 2016,
    https://doi.org/10.1145/2814575. No licence is stated.
    """

    name: ClassVar[str] = "location30"
    folders: ClassVar[tuple[str, ...]] = ("location30",)
    files: ClassVar[str] = f"{ARCHIVE}, or the file '{MEMBER}' from it"

    @classmethod
    def read(cls, folder: Path) -> Decoded:
        """From the archive, or from the file that was in it."""
        plain = there(folder, MEMBER)
        file = plain or needed(folder, ARCHIVE)
        text = unpacked(file) if plain else _member(file)
        lines = text.replace(b'"', b"").split()
        if not lines:
            raise DataError(f"'{file}' holds no record; get it anew")
        rows = [line.split(b",") for line in lines]
        for number, row in enumerate(rows, 1):
            if len(row) != 1 + FEATURES:
                raise DataError(
                    f"line {number} of '{file}' has {len(row)} fields; expected a class and {FEATURES} "
                    "features, with commas between: it is damaged, cut short, or another file"
                )
        try:
            values = np.array(rows).astype(np.int64)
        except ValueError as cause:
            raise DataError(f"'{file}' holds what is no number ({cause}); get it anew") from cause
        return _records(file, values)


def _member(file: Path) -> bytes:
    with mended(file):
        try:
            whole = io.BytesIO(gzip.decompress(file.read_bytes()))  # to its end: is it all there?
            with tarfile.open(fileobj=whole, mode="r:") as archive:
                stream = archive.extractfile(MEMBER)  # read, never unpacked onto the disk
                return stream.read() if stream else b""
        except (KeyError, tarfile.TarError) as cause:
            raise ValueError(f"no archive with a file '{MEMBER}' in it: {cause}") from cause


def _records(file: Path, values: np.ndarray) -> Decoded:
    labels, features = values[:, 0], values[:, 1:]
    strange = ~np.isin(labels, np.arange(1, CLASSES + 1))
    if strange.any():
        raise DataError(
            f"'{file}' has class {labels[strange.argmax()]} in line {int(strange.argmax()) + 1}; "
            f"expected 1 to {CLASSES}"
        )
    if not np.isin(features, (0, 1)).all():
        line = int((~np.isin(features, (0, 1))).any(axis=1).argmax()) + 1
        raise DataError(f"'{file}' has a feature that is neither 0 nor 1 in line {line}")
    return Decoded(features.astype(np.uint8), labels - 1)
