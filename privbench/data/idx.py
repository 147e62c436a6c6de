"""IDX, the format of MNIST and its kin: a big-endian header, then bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from privbench.data.filed import Decoded
from privbench.data.packed import needed, unpacked
from privbench.errors import DataError

IMAGES, LABELS = 2051, 2049  # magic numbers: bytes in three dimensions, or in one


def pair(folder: Path, stem: str, labels: range) -> Decoded:
    """Images ``(n, 1, rows, columns)`` and labels from two files, the labels counted from 0.

    Args:
        stem: what their names begin with: ``stem-images-idx3-ubyte``, ``stem-labels-idx1-ubyte``.
        labels: those that may occur.

    Raises:
        DataError: a file is missing, damaged or of another format, or they do not fit together.
    """
    first, second = (
        needed(folder, f"{stem}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")
    )
    x, y = _array(first, IMAGES, 3), _array(second, LABELS, 1)
    if len(x) != len(y):
        raise DataError(
            f"'{first}' holds {len(x)} images, '{second.name}' {len(y)} labels; expected as many: "
            "get both anew"
        )
    strange = np.setdiff1d(y, labels)
    if len(strange):
        raise DataError(
            f"'{second}' holds label {strange[0]}; expected {labels[0]} to {labels[-1]}: is it the "
            "label file of another data set?"
        )
    return Decoded(x[:, None], y.astype(np.int64) - labels[0])


def _array(file: Path, magic: int, dimensions: int) -> np.ndarray:
    content, head = unpacked(file), 4 + 4 * dimensions
    if len(content) < head:
        raise DataError(f"'{file}' holds {len(content)} bytes, too few for IDX; get it anew")
    found, *shape = struct.unpack(f">{1 + dimensions}I", content[:head])
    if found != magic:
        raise DataError(
            f"'{file}' begins with {found}; expected {magic}, the magic number of IDX "
            f"{'images' if magic == IMAGES else 'labels'}: is it another file under that name?"
        )
    size = int(np.prod(shape, dtype=object))
    if len(content) - head != size:
        raise DataError(
            f"'{file}' announces {' x '.join(map(str, shape))} = {size} bytes and holds "
            f"{len(content) - head}: it is damaged or cut short; get it anew"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
