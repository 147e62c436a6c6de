"""Handwritten digits that come with scikit-learn: real, small, no download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from sklearn.datasets import load_digits

from privbench.data.source import DataSource, Records, checked


@dataclass(frozen=True, kw_only=True)
class Digits(DataSource):
    """1,797 digits of 8 by 8 pixels, 17 grey levels, 10 classes; inputs ``(n, 1, 8, 8)``.

    Source: Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, 1998, its test set,
    https://archive.ics.uci.edu/dataset/80, as bundled with scikit-learn.
    """

    name: ClassVar[str] = "digits"

    def load(self) -> Records:
        """All of them, divided by 16 (their largest grey level)."""
        return _digits(self.records)


@lru_cache(maxsize=1)  # a study opens them once a row, and nobody writes into records
def _digits(count: int | None) -> Records:
    bundle = load_digits()
    images = (bundle.images[:, None] / 16).astype(np.float32)
    return checked(images, bundle.target.astype(np.int64), count=count)
