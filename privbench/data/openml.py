"""Data sets from OpenML, by scikit-learn, checked record by record against known hashes."""

from __future__ import annotations

import hashlib
import http.client
import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.datasets import fetch_openml

from privbench.errors import DataError


@dataclass(frozen=True)
class Listed:
    """What OpenML calls a data set, and what must come.

    Args:
        number: OpenML's number of it; it never changes.
        title: OpenML's name of it.
        megabytes: to be fetched, about.
        whole: ``content`` of all records.
        test: ``content`` of the official test set.
        tests: records of the official test set.
    """

    number: int
    title: str
    megabytes: int
    whole: str
    test: str
    tests: int


@dataclass(frozen=True, eq=False)
class Bunch:
    """Columns ``(n, columns)`` and labels ``(n,)``, as OpenML has them."""

    inputs: np.ndarray
    labels: np.ndarray


def fetched(name: str, listed: Listed) -> Bunch:
    """A data set from OpenML, or from where scikit-learn keeps what it fetched.

    Raises:
        DataError: it did not come.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's, one a retry
            found = fetch_openml(data_id=listed.number, as_frame=True, parser="pandas")
    except (OSError, EOFError, ValueError, LookupError, http.client.HTTPException) as cause:
        raise DataError(
            f"cannot fetch {listed.title} (number {listed.number}) from OpenML: {cause}; try again "
            f"where there is a network, or read data={name} from files: type data.root=FOLDER"
        ) from cause
    return Bunch(found.data.to_numpy(), found.target.to_numpy())


def parts_of(name: str, listed: Listed, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """1 for the records of the official test set, 0 for the others.

    OpenML's order is its own: the test set is looked for at the end and at the beginning. None where
    it is at neither.

    Raises:
        DataError: these are not the records of the data set.
    """
    if (came := content(x, y)) != listed.whole:
        raise DataError(
            f"what OpenML sent as {listed.title} (number {listed.number}) is not data={name}: "
            f"{len(y)} records of hash {came}, expected {listed.whole}; remove openml/ from scikit-learn's "
            "data folder and try again, or read them from files: type data.root=FOLDER"
        )
    parts = np.zeros(len(y), dtype=np.int64)
    for place in (slice(len(y) - listed.tests, None), slice(0, listed.tests)):
        if content(x[place], y[place]) == listed.test:
            parts[place] = 1
            return parts
    return None


def content(x: np.ndarray, y: np.ndarray) -> str:
    """Hash of records, whatever their order: 32 hexadecimal digits."""
    each = sorted(
        hashlib.sha256(row.tobytes() + int(label).to_bytes(8, "little")).digest()
        for row, label in zip(x, y, strict=True)
    )
    return hashlib.sha256(b"".join(each)).hexdigest()[:32]
