"""A user's own images: a folder with one sub-folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, ImageOps

from privbench.data.filed import Stamp, stamp
from privbench.data.packed import mended
from privbench.data.source import DataSource, Records, checked
from privbench.data.subset import chosen
from privbench.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
OFFICIAL = ("train", "test")
LAYOUT = "one sub-folder a class, or train/ and test/ with one each"


@dataclass(frozen=True, kw_only=True)
class Images(DataSource):
    """An image folder; inputs ``(n, 1, h, w)`` where all are grey, else ``(n, 3, h, w)``.

    Sub-folders are the classes, numbered in the order of their names. Two sub-folders ``train`` and
    ``test`` that hold the same classes make an official split. Hidden files are passed over.

    Args:
        path: the folder.
        size: pixels a side to which each is cut (a square from its middle) and scaled; 0 = as they
            are, all of one size.
    """

    name: ClassVar[str] = "images"

    path: str = ""
    size: int = 0

    def load(self) -> Records:
        """All images, class by class, in the order of their names."""
        folder = Path(self.path).expanduser()
        if not self.path or not folder.is_dir():
            raise DataError(
                f"there is no folder '{self.path}'; expected data.path=FOLDER with {LAYOUT}"
            )
        if self.size < 0:
            raise DataError(f"data.size={self.size}; expected pixels a side, or 0 for as they are")
        return _opened(self, folder, stamp(folder))


@lru_cache(maxsize=1)  # a study opens them once a row, and nobody writes into records
def _opened(source: Images, folder: Path, stamp: Stamp) -> Records:
    classes = _folders(folder)
    official = [entry.name for entry in classes] == sorted(OFFICIAL)
    halves = [folder / part for part in OFFICIAL] if official else [folder]
    names = [entry.name for entry in _folders(halves[0])]
    for half in halves[1:]:
        if (found := [entry.name for entry in _folders(half)]) != names:
            strange = sorted(set(found) ^ set(names))
            raise DataError(
                f"'{halves[0]}' and '{half}' hold different classes ({', '.join(strange[:5])}); "
                "expected the same sub-folders in both"
            )
    files, labels, parts = [], [], []
    for part, half in enumerate(halves):
        for label, name in enumerate(names):
            here = _files(half / name)
            files += here
            labels += [label] * len(here)
            parts += [part] * len(here)
    y, where = np.array(labels), np.array(parts) if official else None
    kept = chosen(y, where, source.records)
    x = stacked([files[i] for i in kept], source.size)
    return checked(x, y[kept], None if where is None else where[kept])


def stacked(files: Sequence[Path], size: int = 0) -> np.ndarray:
    """Images ``(n, channels, h, w)``, bytes; one channel where all are grey, else three.

    Args:
        size: pixels a side to cut and scale to; 0 = as they are.

    Raises:
        DataError: one cannot be read, or they differ in size.
    """
    found = []
    for file in files:
        found.append(_read(file, size))
        if found[-1].shape[1:] != found[0].shape[1:]:
            raise DataError(
                f"images differ in size: '{files[0]}' has {_shape(found[0])} pixels, '{file}' "
                f"{_shape(found[-1])}; type data.size=32, for one, to cut and scale all of them"
            )
    if len({len(image) for image in found}) > 1:
        found = [image if len(image) == 3 else image.repeat(3, axis=0) for image in found]
    return np.stack(found)


def pixels(image: Image.Image) -> np.ndarray:
    """``(1 or 3, h, w)`` bytes; transparency is dropped.

    Raises:
        ValueError: its pixels are not of 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"expected 8 bits a channel, got mode {image.mode}")
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette may hold transparency
    grey = image.mode in ("1", "L", "LA")
    array = np.asarray(image.convert("L" if grey else "RGB"))
    return array[None] if grey else array.transpose(2, 0, 1)


def _read(file: Path, size: int) -> np.ndarray:
    # SyntaxError: what Pillow raises on a broken PNG
    try:
        with mended(file), Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            return pixels(ImageOps.fit(upright, (size, size)) if size else upright)
    except (SyntaxError, Image.DecompressionBombError) as cause:
        raise DataError(f"'{file}' cannot be read ({cause}): get it anew") from cause


def _folders(folder: Path) -> list[Path]:
    found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in found if entry.is_dir()]
    if len(classes) < 2:
        loose = sum(entry.suffix.lower() in ENDINGS for entry in found)
        raise DataError(
            f"'{folder}' has {len(classes)} sub-folders{f' and {loose} images' if loose else ''}; "
            f"expected {LAYOUT}, at least 2 classes"
        )
    return classes


def _files(folder: Path) -> list[Path]:
    found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    strange = [entry.name for entry in found if entry.suffix.lower() not in ENDINGS]
    if strange:
        raise DataError(
            f"'{folder}' holds '{strange[0]}', which is no image; expected {' '.join(ENDINGS)} alone: "
            "move it elsewhere"
        )
    if not found:
        raise DataError(
            f"class folder '{folder}' is empty; put images ({' '.join(ENDINGS)}) into it, or remove it"
        )
    return found


def _shape(image: np.ndarray) -> str:
    return f"{image.shape[2]} x {image.shape[1]}"
