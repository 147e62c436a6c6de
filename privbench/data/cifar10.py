"""CIFAR-10: small colour photographs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from privbench.data.filed import Decoded, Fetched
from privbench.data.openml import Listed
from privbench.data.packed import arrays, mended, needed, there, unpacked
from privbench.errors import DataError

TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
RECORD = 1 + 3 * 32 * 32  # bytes of the binary form: a label, then red, green and blue


@dataclass(frozen=True, kw_only=True)
class Cifar10(Fetched):
    """50,000 + 10,000 photographs; inputs ``(n, 3, 32, 32)``, red, green, blue; 10 classes.

    Classes: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck.

    Source: Krizhevsky: Learning multiple layers of features from tiny images, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html. No formal licence; free for research, with citation.

    Read from the binary version (``data_batch_1.bin``, …) or from delta-coded arrays
    (``data_batch_1.delta.npy.xz``, … and ``labels.npz``). The Python version consists of pickles, which
    could run any code: they are not opened.
    """

    name: ClassVar[str] = "cifar10"
    folders: ClassVar[tuple[str, ...]] = ("cifar10", "cifar-10-batches-bin", "cifar-10-batches-py")
    files: ClassVar[str] = (
        "data_batch_1.bin to data_batch_5.bin and test_batch.bin, CIFAR-10's binary version"
    )
    listed: ClassVar[Listed] = Listed(
        40927,
        "CIFAR_10",
        650,
        "5de405b43efc01ffeb6636945981db54",
        "77607e1cd43d23381060104a0e869a7f",
        10_000,
    )

    @classmethod
    def read(cls, folder: Path) -> Decoded:
        """From the binary version, else from delta-coded arrays."""
        if there(folder, "data_batch_1.delta.npy") is not None:
            return _delta(folder)
        if there(folder, "data_batch_1") is not None:
            raise DataError(
                f"'{folder}' holds the Python version of CIFAR-10: pickles, which could run any code "
                f"and are never opened; get the binary version ({cls.files})"
            )
        train = [_binary(needed(folder, f"{name}.bin")) for name in TRAINING]
        test = _binary(needed(folder, "test_batch.bin"))
        x, y = (np.concatenate(each) for each in zip(*((t.x, t.y) for t in train), strict=True))
        return Decoded.joined(Decoded(x, y), test)

    @classmethod
    def decode(cls, inputs: np.ndarray, labels: np.ndarray) -> Decoded:
        """From 3,072 columns of pixels, colour by colour."""
        return Decoded(inputs.astype(np.uint8).reshape(-1, 3, 32, 32), labels.astype(np.int64))


def _binary(file: Path) -> Decoded:
    content = unpacked(file)
    if not content or len(content) % RECORD:
        raise DataError(
            f"'{file}' holds {len(content)} bytes; expected a multiple of {RECORD} (a label and "
            "3 x 32 x 32 pixels a record): it is damaged, cut short, or another file"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return Decoded(records[:, 1:].reshape(-1, 3, 32, 32), _labels(file, records[:, 0]))


def _delta(folder: Path) -> Decoded:
    file = needed(folder, "labels.npz")
    train, test = (_labels(file, y) for y in arrays(file, "train", "test"))
    images = [_decoded(needed(folder, f"{name}.delta.npy")) for name in (*TRAINING, "test_batch")]
    x = np.concatenate(images[:-1])
    for found, labels, part in ((x, train, "training"), (images[-1], test, "test")):
        if len(found) != len(labels):
            raise DataError(
                f"'{folder}' holds {len(found)} {part} images and '{file.name}' {len(labels)} labels; "
                "expected as many: get them anew"
            )
    return Decoded.joined(Decoded(x, train), Decoded(images[-1], test))


def _decoded(file: Path) -> np.ndarray:
    """Images from residuals: red and blue less green, differences along both axes, modulo 256."""
    content = unpacked(file)  # to its end: is it all there?
    with mended(file):
        x = np.load(io.BytesIO(content), allow_pickle=False)
    if x.dtype != np.uint8 or x.shape[1:] != (3, 32, 32):
        raise DataError(f"'{file}' holds {x.dtype} {x.shape}; expected uint8 (n, 3, 32, 32)")
    x = np.cumsum(np.cumsum(x, axis=2, dtype=np.uint8), axis=3, dtype=np.uint8)
    x[:, 0] += x[:, 1]
    x[:, 2] += x[:, 1]
    return x


def _labels(file: Path, y: np.ndarray) -> np.ndarray:
    if y.ndim != 1 or y.dtype.kind not in "iu" or (len(y) and not 0 <= y.min() <= y.max() <= 9):
        raise DataError(f"'{file}' holds labels other than 0 to 9: is it another data set?")
    return y.astype(np.int64)
