"""A user's own ``torch.utils.data.Dataset``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from privbench.data.filed import Decoded
from privbench.data.images import pixels
from privbench.data.source import DataSource, Records, checked
from privbench.errors import DataError

TWICE = 8  # records that are asked for a second time: a random flip shows with all but 1/256


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchDataset(DataSource):
    """Any torch data set whose records are pairs (input, label), read once from end to end.

    Inputs are tensors or arrays of one shape, real numbers in [0, 1] or bytes, or PIL images; labels
    are whole numbers from 0. What a record is may not be left to chance: no random transforms.

    Args:
        dataset: with ``__len__`` and ``__getitem__``, or iterable and finite.
        test: a second one that makes an official split: ``dataset`` trains, ``test`` measures.

    Example::

        privbench data=torch_dataset data.dataset._target_=mydata.MyDataset data.dataset.root=photos
    """

    name: ClassVar[str] = "torch_dataset"

    dataset: InitVar[Any] = None
    test: InitVar[Any] = None

    def __post_init__(self, dataset: Any, test: Any) -> None:
        # no fields: what a run is depends on the records, not on the object that gave them
        object.__setattr__(self, "_sets", (dataset, test))

    def load(self) -> Records:
        """All records, those of ``test`` last."""
        train, test = vars(self)["_sets"]
        found = _gathered(train, "dataset")
        if test is not None:
            found = Decoded.joined(found, _gathered(test, "test"))
        return checked(found.x, found.y, found.parts, self.records)


def _gathered(dataset: Any, key: str) -> Decoded:
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        kind = "not set" if dataset is None else type(dataset).__name__
        raise DataError(
            f"data.{key} is {kind}; expected a torch.utils.data.Dataset: type "
            f"data.{key}._target_=package.module.Class, and its arguments as data.{key}.NAME=…"
        )
    where = f"data.{key} ({type(dataset).__name__})"
    xs: list[np.ndarray] = []
    ys: list[int] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for number, item in enumerate(_items(dataset, where)):
            x, y = _record(item, f"record {number} of {where}")
            if xs and x.shape != xs[0].shape:
                raise DataError(
                    f"record {number} of {where} has shape {x.shape}, record 0 {xs[0].shape}; expected "
                    "one shape: resize in its transform"
                )
            xs.append(x)
            ys.append(y)
        for number, item in enumerate(islice(_items(dataset, where), TWICE)):
            x, y = _record(item, f"record {number} of {where}")
            if number >= len(xs) or y != ys[number] or not np.array_equal(x, xs[number]):
                raise DataError(
                    f"record {number} of {where} is another one when asked for again; expected the "
                    "same: take random transforms and shuffling out"
                )
    if not xs:
        raise DataError(f"{where} is empty; expected records")
    stacked = np.stack(xs)
    if stacked.dtype.kind == "f" and (stacked.min() < 0 or stacked.max() > 1):
        raise DataError(
            f"inputs of {where} lie in [{stacked.min():g}, {stacked.max():g}]; expected [0, 1] or bytes: "
            "take Normalize out of its transform"
        )
    return Decoded(stacked, np.array(ys, dtype=np.int64))


def _items(dataset: Any, where: str) -> Iterator[Any]:
    """Records one after another; what goes wrong inside the user's class is said to be there."""
    sized = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    number = 0
    try:
        if not sized:
            for item in dataset:
                yield item
                number += 1
            return
        for number in range(len(dataset)):
            yield dataset[number]
    except DataError:
        raise
    except Exception as cause:
        raise DataError(
            f"record {number} of {where} raised {type(cause).__name__}: {cause}"
        ) from cause


def _record(item: Any, where: str) -> tuple[np.ndarray, int]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        got = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
        raise DataError(f"{where} is {got}; expected a pair (input, label)")
    x, y = item
    if isinstance(x, Image.Image):
        x = pixels(x)
    if isinstance(x, Tensor):
        x = x.detach().cpu().numpy()
    label = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    if label.size != 1 or label.dtype.kind not in "iu":
        raise DataError(f"{where} has label {y!r}; expected one whole number")
    return np.asarray(x), int(label.item())
