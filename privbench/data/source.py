"""Where records come from, and what every data set must keep."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Samples
from privbench.data.subset import chosen
from privbench.errors import DataError

PARTS = ("member", "non_member", "auxiliary", "evaluator")
"""Names of the parts that a record can be told to belong to; their numbers are 0, 1, 2, 3."""

SPLITS = ("thirds", "halves", "official", "given")
"""Ways to split: by seed into four parts or two, or as the data set or the user says."""


@dataclass(frozen=True, eq=False)
class Records:
    """All records of a data set.

    Args:
        samples: inputs ``(n, *shape)`` float32 in [0, 1], labels ``(n,)`` from 0 to k - 1.
        parts: number in ``PARTS`` of each record, where the data set says; else None.
    """

    samples: Samples
    parts: Int64[Tensor, " n"] | None = None


@dataclass(frozen=True, kw_only=True)
class DataSource(ABC):
    """A data set. Subclasses are frozen dataclasses; the same fields give the same records.

    Args:
        split: one of ``SPLITS``.
        records: how many to use, drawn so that classes keep their shares, the same whatever the
            run's seed; None = all.
        canaries: so many records, taken from what would be non-members, are each put among the
            private records by a fair coin, and are then the candidates; 0 = none.
        canary: what they are made into, see ``canaries.plant``.
    """

    name: ClassVar[str]

    split: str = "thirds"
    records: int | None = None
    canaries: int = 0
    canary: str = "natural"

    @abstractmethod
    def load(self) -> Records:
        """Every record, or ``records`` of them, in the data set's own order.

        Raises:
            DataError: the data cannot be used; the message says how to mend them.
        """


def checked(x: object, y: object, parts: object = None, count: int | None = None) -> Records:
    """Arrays or tensors as records, scaled.

    Args:
        x: ``(n, *shape)``; real numbers in [0, 1], booleans, or integers from 0 to 255 (divided by
            255).
        y: ``(n,)`` integers; every label from 0 to k - 1 occurs, k at least 2.
        parts: ``(n,)`` numbers or names of ``PARTS``, or None.
        count: how many to keep, as ``subset.chosen`` draws them; None = all.

    Raises:
        DataError: anything else; the message says what was expected, what came, what to type.
    """
    inputs, labels = _array("x", x), _array("y", y)
    if inputs.ndim < 2 or labels.ndim != 1 or len(inputs) != len(labels):
        raise DataError(
            "expected x of shape (n, ...) and y of shape (n,); got "
            f"x {inputs.shape} and y {labels.shape}"
            + ("; one-hot labels become numbers by y.argmax(axis=1)" if labels.ndim == 2 else "")
            + ("; reshape plain vectors by x.reshape(len(y), -1)" if inputs.ndim == 1 else "")
        )
    if not len(inputs):
        raise DataError("expected records; x and y are empty")
    numbers = _labels(labels)
    places = None if parts is None else _parts(_array("split", parts), len(labels))
    if count is None:
        return Records(Samples(_scaled(inputs), numbers), places)
    kept = chosen(numbers.numpy(), None if places is None else places.numpy(), count)
    samples = Samples(_scaled(inputs, kept), numbers[kept])
    return Records(samples, None if places is None else places[kept])


def digest(records: Records) -> str:
    """Hash of every byte of the records: 16 hexadecimal digits."""
    whole = hashlib.sha256()
    for tensor in (records.samples.x, records.samples.y, records.parts):
        if tensor is None:
            whole.update(b"none")
            continue
        whole.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        whole.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return whole.hexdigest()[:16]


def _array(what: str, values: object) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.dtype == object:
        raise DataError(f"{what} holds Python objects; expected an array of numbers of equal shape")
    return array


def _scaled(x: np.ndarray, kept: np.ndarray | None = None) -> Tensor:
    """Some of x, or all; whether and how they are scaled, all decide."""
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool) or np.iscomplexobj(x):
        raise DataError(f"expected real numbers in x, got {x.dtype}")
    whole = np.issubdtype(x.dtype, np.integer)
    if not whole and not np.isfinite(x).all():
        count = int((~np.isfinite(x)).sum())
        raise DataError(
            f"x holds {count} NaN or infinite values; expected finite numbers: drop those records "
            "or fill them, numpy.nan_to_num(x) for one"
        )
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > (255 if whole else 1):
        raise DataError(
            f"x lies in [{low:g}, {high:g}]; expected real numbers in [0, 1] or integers from 0 to "
            "255: pass (x - x.min()) / (x.max() - x.min())"
        )
    x = x if kept is None else x[kept]
    if whole and high > 1:
        values = (np.arange(256) / 255).astype(np.float32)[x]  # no float64 copy of many images
    else:
        values = x
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _labels(y: np.ndarray) -> Tensor:
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"expected integer labels, got {y.dtype}: pass y.astype(int)")
    found = np.unique(y)
    if len(found) < 2:
        raise DataError(f"expected at least 2 classes, every label is {found[0]}")
    if not np.array_equal(found, np.arange(len(found))):
        shown = ", ".join(str(label) for label in found[:10])
        raise DataError(
            f"expected labels 0 to {len(found) - 1}, each at least once; found {shown}: "
            "pass numpy.unique(y, return_inverse=True)[1]"
        )
    return torch.from_numpy(y.astype(np.int64))


def _parts(parts: np.ndarray, records: int) -> Tensor:
    if parts.shape != (records,):
        raise DataError(f"expected split of shape ({records},), got {parts.shape}")
    if parts.dtype.kind in "US":
        names = [str(name) for name in parts.astype(str)]
        unknown = sorted(set(names) - set(PARTS))
        numbers = np.array([PARTS.index(name) if name in PARTS else -1 for name in names])
    else:
        unknown = sorted(set(np.unique(parts).tolist()) - set(range(len(PARTS))))
        numbers = parts
    if unknown:
        known = ", ".join(f"{i} or {name}" for i, name in enumerate(PARTS))
        raise DataError(f"split holds {unknown[:5]}; expected {known}")
    return torch.from_numpy(numbers.astype(np.int64))
