"""Dropout masks that depend on seed, step, layer, unit and row alone, not on who computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_WHOLE = (F.dropout,)
_BY_UNIT = (F.dropout1d, F.dropout2d, F.dropout3d)
_MIX = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # of splitmix64, as signed numbers
_GOLDEN = -0x61C8864680B583EB


class Noise:
    """Hands out dropout masks for one training run.

    A mask is a counter-based random number of (seed, step, call, row, unit, position): a device that
    computes some units of some rows draws what the whole network would have drawn there. After
    Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011,
    https://doi.org/10.1145/2063384.2063405; the mixing function is Vigna's splitmix64.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = 0
        self.rows: Int64[Tensor, " n"] | None = None

    def of_step(self, rows: Int64[Tensor, " n"] | None) -> Int64[Tensor, " n"] | None:
        """Rows among those that are computed at a time, as rows of the step's batch."""
        if self.rows is None or rows is None:
            return self.rows if rows is None else rows
        return self.rows[rows]

    def at(
        self,
        call: int = 0,
        rows: Int64[Tensor, " n"] | None = None,
        units: Sequence[int] | None = None,
    ) -> Masks:
        """A context in which dropout is keyed by this step.

        Args:
            call: number of the first dropout call inside, in order of the whole forward pass.
            rows: that are computed, of those that are computed at a time (``self.rows``, of the
                step's batch; None = all of it); None = all of these, in order.
            units: indices on the second axis that are computed; None = all, in order.
        """
        return Masks(_mixed(_mixed(self.seed, self.step), 0), call, self.of_step(rows), units)


class Masks(TorchFunctionMode, AbstractContextManager["Masks"]):
    """Replaces dropout inside the context; ``calls`` counts it."""

    def __init__(
        self,
        key: int,
        call: int,
        rows: Int64[Tensor, " n"] | None = None,
        units: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self._key, self._rows, self._units = key, rows, units
        self.first = self._call = call

    @property
    def calls(self) -> int:
        """Dropout calls so far."""
        return self._call - self.first

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _WHOLE and func not in _BY_UNIT:
            return func(*args, **kwargs)
        key = _mixed(self._key, self._call)
        self._call += 1
        return _dropped(key, self._rows, self._units, func in _BY_UNIT, *args, **kwargs)


def _dropped(
    key: int,
    rows: Tensor | None,
    units: Sequence[int] | None,
    by_unit: bool,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Tensor:
    if not training or p == 0:
        return input
    shape = input.shape[:2] if by_unit else input.shape
    there = torch.arange(len(input)) if rows is None else rows
    axis = torch.arange(input.shape[1]) if units is None else torch.tensor(units)
    kept = keep(key, there.to(input.device), axis.to(input.device), tuple(shape[2:]), p)
    kept = kept.reshape(*kept.shape, *[1] * (input.ndim - kept.ndim))
    return input * kept / (1 - p) if p < 1 else input * 0.0


def keep(
    key: int,
    rows: Int64[Tensor, " n"],
    units: Int64[Tensor, " k"],
    inner: tuple[int, ...],
    p: float,
) -> Bool[Tensor, "n k ..."]:
    """Which numbers are kept, each with probability ``1 - p``."""
    state = _shuffled(rows + key)[:, None] + units
    for size in inner:
        state = _shuffled(state)[..., None] + torch.arange(size, device=rows.device)
    return (_shuffled(state) >> 11).bitwise_and((1 << 53) - 1).double() >= p * 2.0**53


def _shuffled(state: Tensor) -> Tensor:
    """splitmix64's output function, on whole tensors; overflow wraps around."""
    state = state + _GOLDEN
    state = (state ^ ((state >> 30) & ((1 << 34) - 1))) * _MIX[0]
    state = (state ^ ((state >> 27) & ((1 << 37) - 1))) * _MIX[1]
    return state ^ ((state >> 31) & ((1 << 33) - 1))


def _mixed(key: int, part: int) -> int:
    wide = torch.tensor([(key ^ (part * 0x9E3779B9)) & ((1 << 62) - 1)])
    return int(_shuffled(wide))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random layers draw from the global generators: lend them a seed, and give them back."""
    on_cuda: list[Any] = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=on_cuda):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed(seed)
        yield
