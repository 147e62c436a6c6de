"""Small data sets, written in the formats of the large ones."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

PEOPLE = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, United-States, <=50K
52, Self-emp-inc, 287927, HS-grad, 9, Married-civ-spouse, Exec-managerial, Wife, White, Female, 15024, 0, 40, United-States, >50K
54, ?, 180211, Some-college, 10, Married-civ-spouse, ?, Husband, Asian-Pac-Islander, Male, 0, 0, 60, South, >50K
"""  # noqa: E501
TESTED = """\
|1x3 Cross validator
25, Private, 226802, 11th, 7, Never-married, Machine-op-inspct, Own-child, Black, Male, 0, 0, 40, ?, <=50K.
44, Private, 160323, Some-college, 10, Married-civ-spouse, Machine-op-inspct, Husband, Black, Male, 7688, 0, 40, United-States, >50K.

"""  # noqa: E501


def idx(array: np.ndarray) -> bytes:
    """Bytes in IDX: 2051 announces images, 2049 labels."""
    magic = 2048 + array.ndim
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write_idx(folder: Path, stem: str, x: np.ndarray, y: np.ndarray, pack=gzip.compress) -> None:
    """Both files of a set, packed."""
    folder.mkdir(parents=True, exist_ok=True)
    ending = {gzip.compress: ".gz", lzma.compress: ".xz"}.get(pack, "")
    (folder / f"{stem}-images-idx3-ubyte{ending}").write_bytes(pack(idx(x)))
    (folder / f"{stem}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(y)))


def images(count: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def labels(count: int, classes: int, first: int = 0) -> np.ndarray:
    """Each class in turn."""
    return (np.arange(count) % classes + first).astype(np.uint8)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A root with 40 + 20 digits of 6 by 5 pixels."""
    write_idx(tmp_path / "mnist", "train", images(40, (6, 5)), labels(40, 10))
    write_idx(tmp_path / "mnist", "t10k", images(20, (6, 5), 1), labels(20, 10))
    return tmp_path


def write_tar(file: Path, name: str, content: bytes) -> None:
    """An archive of one file."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    with tarfile.open(file, "w:gz") as archive:
        archive.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="session")
def root() -> str:
    """A ``data.root`` with the real sets."""
    named = os.environ.get("PRIVBENCH_DATA", "")
    if not named:
        pytest.skip(
            "set PRIVBENCH_DATA to a data.root with mnist/, cifar10/, … (docs/data-sets.md)"
        )
    return named
