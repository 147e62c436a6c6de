"""A user's own records: from an .npz file, or from arrays and tensors at hand."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from privbench.data.source import DataSource, Records, checked
from privbench.errors import DataError

KEYS = ("x", "y", "split")


@dataclass(frozen=True, kw_only=True)
class Arrays(DataSource):
    """Records of an .npz file with keys ``x``, ``y`` and, optionally, ``split``.

    Args:
        path: the file.
        split: ``auto`` = as the key ``split`` says where there is one, else ``thirds``.
    """

    name: ClassVar[str] = "arrays"

    path: str = ""
    split: str = "auto"

    def load(self) -> Records:
        """Every record of the file; pickled content is refused."""
        file = Path(self.path)
        if not self.path or not file.is_file():
            raise DataError(
                f"there is no file '{self.path}'; expected data.path=FILE.npz with keys x and y, "
                "as numpy.savez(FILE, x=x, y=y) writes it"
            )
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                found = {key: stored[key] for key in stored.files}
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as cause:
            raise DataError(
                f"cannot read '{file}' as an .npz of plain arrays ({cause}); write it anew with "
                "numpy.savez(FILE, x=x, y=y)"
            ) from cause
        strangers = sorted(set(found) - set(KEYS))
        missing = sorted({"x", "y"} - set(found))
        if strangers or missing:
            raise DataError(
                f"'{file}' has keys {', '.join(sorted(found)) or 'none'}; expected x, y and, if you "
                "wish, split (0 member, 1 non_member, 2 auxiliary, 3 evaluator)"
            )
        return checked(found["x"], found["y"], found.get("split"), self.records)


@dataclass(frozen=True, kw_only=True, eq=False)
class InMemory(DataSource):
    """Records handed over as Python objects; ``arrays`` and ``members`` make them."""

    name: ClassVar[str] = "arrays"

    x: Tensor = field(repr=False)
    y: Tensor = field(repr=False)
    parts: Tensor | None = field(default=None, repr=False)
    split: str = "auto"

    def load(self) -> Records:
        """The records themselves."""
        return checked(self.x, self.y, self.parts, self.records)


def arrays(x: object, y: object, split: object = None) -> InMemory:
    """A data set from numpy arrays, tensors or nested lists.

    Args:
        x: ``(n, *shape)``, real numbers in [0, 1] or integers from 0 to 255.
        y: ``(n,)``, labels from 0 to k - 1.
        split: None (split by seed), a way to split (``thirds``, ``halves``), or for each record
            0 member, 1 non_member, 2 auxiliary, 3 evaluator (numbers or names).

    Raises:
        DataError: shapes, values or labels are not as above.
    """
    way, parts = (split, None) if isinstance(split, str) else ("auto", split)
    records = checked(x, y, parts)
    return InMemory(x=records.samples.x, y=_known(records), parts=records.parts, split=way)


def members(
    members: tuple[object, object],
    non_members: tuple[object, object],
    auxiliary: tuple[object, object] | None = None,
) -> InMemory:
    """Records of a model trained elsewhere: ``(x, y)`` that trained it, and ``(x, y)`` that did not.

    Args:
        members, non_members, auxiliary: inputs and labels, as in ``arrays``; at best a random
            split of one pool, else they can be told apart without the model (the blind value
            shows that).

    Raises:
        DataError: the groups have inputs of different shape, or values not as in ``arrays``.
    """
    groups = [members, non_members] + ([auxiliary] if auxiliary is not None else [])
    xs = [_plain(x) for x, _ in groups]
    ys = [_plain(y) for _, y in groups]
    shapes = {x.shape[1:] for x in xs}
    if len(shapes) != 1 or len({x.dtype.kind for x in xs}) != 1:
        found = ", ".join(f"{x.dtype} {x.shape}" for x in xs)
        raise DataError(f"members and non_members need inputs of one shape and type; got {found}")
    parts = np.concatenate([np.full(len(y), i) for i, y in enumerate(ys)])
    return arrays(np.concatenate(xs), np.concatenate(ys), parts)


def _plain(values: object) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _known(records: Records) -> Tensor:
    if records.samples.y is None:
        raise DataError("expected labels y, got none")
    return records.samples.y
