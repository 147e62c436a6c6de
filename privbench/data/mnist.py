"""Grey images of 28 by 28 pixels: MNIST, and two sets in its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from privbench.data.filed import Decoded, Fetched, Filed
from privbench.data.idx import pair
from privbench.data.openml import Listed
from privbench.data.packed import there

IDX = "{0}-images-idx3-ubyte and {0}-labels-idx1-ubyte (plain, .gz or .xz)"


@dataclass(frozen=True, kw_only=True)
class Mnist(Fetched):
    """60,000 + 10,000 handwritten digits; inputs ``(n, 1, 28, 28)``, classes 0 to 9.

    Source: LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition,
    1998, https://doi.org/10.1109/5.726791. Licence: commonly stated as CC BY-SA 3.0.
    """

    name: ClassVar[str] = "mnist"
    folders: ClassVar[tuple[str, ...]] = ("mnist", "MNIST/raw")
    files: ClassVar[str] = IDX.format("train") + ", the same with t10k"
    listed: ClassVar[Listed] = Listed(
        554,
        "mnist_784",
        15,
        "3c6010c2a648f5f96085d718c0e3cd68",
        "4be5dbf3279c06a13f5ec5886b40e9a0",
        10_000,
    )

    @classmethod
    def read(cls, folder: Path) -> Decoded:
        """From the four original files."""
        digits = range(10)
        return Decoded.joined(pair(folder, "train", digits), pair(folder, "t10k", digits))

    @classmethod
    def decode(cls, inputs: np.ndarray, labels: np.ndarray) -> Decoded:
        """From 784 columns of pixels."""
        return Decoded(inputs.astype(np.uint8).reshape(-1, 1, 28, 28), labels.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class FashionMnist(Mnist):
    """60,000 + 10,000 pictures of clothes; inputs ``(n, 1, 28, 28)``, 10 classes.

    Classes: T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot.

    Source: Xiao, Rasul, Vollgraf: Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms, 2017, https://arxiv.org/abs/1708.07747. Licence: MIT.
    """

    name: ClassVar[str] = "fashion_mnist"
    folders: ClassVar[tuple[str, ...]] = ("fashion-mnist", "FashionMNIST/raw")
    listed: ClassVar[Listed] = Listed(
        40996,
        "Fashion-MNIST",
        35,
        "2a5dee2ad72843c846a31843606a4aa6",
        "42d9ee570837aba1cd0b32741e8c1a09",
        10_000,
    )


@dataclass(frozen=True, kw_only=True)
class EmnistLetters(Filed):
    """Handwritten letters, both cases merged; inputs ``(n, 1, 28, 28)``, classes 0 = a to 25 = z.

    124,800 + 20,800 of them; where the training files are not there, the 20,800 of the test set alone,
    and there is no official split. Images are stored transposed; here they stand upright, like MNIST's.

    Source: Cohen, Afshar, Tapson, van Schaik: EMNIST: an extension of MNIST to handwritten letters,
    2017, https://arxiv.org/abs/1702.05373, from NIST Special Database 19 (public domain).
    """

    name: ClassVar[str] = "emnist_letters"
    folders: ClassVar[tuple[str, ...]] = ("emnist-letters", "EMNIST/raw")
    files: ClassVar[str] = (
        IDX.format("emnist-letters-test") + ", the same with train for the training set"
    )

    @classmethod
    def read(cls, folder: Path) -> Decoded:
        """From the original files."""
        train, letters = "emnist-letters-train", range(1, 27)
        found = _upright(pair(folder, "emnist-letters-test", letters))
        if there(folder, f"{train}-images-idx3-ubyte") is None:
            return found
        return Decoded.joined(_upright(pair(folder, train, letters)), found)


def _upright(found: Decoded) -> Decoded:
    return Decoded(found.x.swapaxes(2, 3), found.y)
