"""Signatures tell the truth of shapes because these checks are on: they are not switched off in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int64, jaxtyped
from shapes import ShapeError, misfit
from torch import Tensor

from privbench.contract import Samples
from privbench.contract.augmentation import copies_of
from privbench.data.truth import Truth
from privbench.errors import PluginError
from privbench.regimes.federation import Work

TRUTH = Truth(Samples(torch.zeros(3, 2), None))


def test_a_call_of_another_rank_or_dtype_is_an_error() -> None:
    with pytest.raises(
        ShapeError, match=r"Truth.note: positions \(2, 1\): .* 2 dimensions, not the 1"
    ):
        TRUTH.note(0, torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ShapeError, match="dtype float32, not int64"):
        TRUTH.note(0, torch.zeros(2))


def test_a_field_of_another_rank_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"Work\.__init__: batches"):
        Work(0, (torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64)))


def test_refusals_of_ours_come_first() -> None:
    with pytest.raises(PluginError, match="names positions 7 to 7"):
        TRUTH.note(0, torch.full((2, 1), 7))


def test_what_a_generator_yields_is_looked_at() -> None:
    with pytest.raises(ShapeError, match="copies_of: x"):
        next(copies_of(None, torch.zeros(2, dtype=torch.int64)))


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Float[Tensor, " n"] | None, [None, torch.zeros(2)], [0.0, torch.zeros(2, 2)]),
        (Float[Tensor, " n"] | float, [1.0, 1, torch.zeros(2)], ["1", torch.zeros(())]),
        (
            Sequence[Int64[Tensor, " _n"]],
            [[], (torch.arange(2), torch.arange(3))],
            [[torch.arange(2), torch.zeros(2)]],
        ),
        (list[Float[Tensor, " n"]], [[torch.zeros(2)] * 2], [[torch.zeros(2), torch.zeros(3)]]),
        (tuple[str, Float[Tensor, " n"]], [("", torch.zeros(2))], [("", torch.zeros(2, 2))]),
        (Mapping[str, Float[Tensor, " n"]], [{"": torch.zeros(2)}], [{"": torch.arange(2)}]),
        (tuple[Float[Tensor, "n n"], ...], [(torch.zeros(2, 2),)], [(torch.zeros(2, 3),)]),
    ],
)
def test_shapes_are_looked_for_in_whatever_holds_them(
    hint: Any, good: list[object], bad: list[object]
) -> None:
    for values, fits in ((good, True), (bad, False)):
        for value in values:
            with jaxtyped("context"):
                assert (misfit(value, hint) == "") is fits
