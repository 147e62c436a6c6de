"""Augmentation: a model learns from copies of the records, drawn anew at each visit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract.recipe import Recipe, Samples, Spec, child_rng
from privbench.errors import PluginError


class Augmentation(ABC):
    """Makes copies of records. Subclasses are frozen dataclasses.

    A copy depends on its own record alone, and what is drawn on the shape of ``x`` alone: owners who
    hold some rows of a batch each then make the copies that one who held all would make, and clipping
    bounds a record's part in a step as it does without copies.
    """

    source: ClassVar[str]

    @abstractmethod
    def __call__(self, x: Float[Tensor, "n ..."], rng: torch.Generator) -> Float[Tensor, "n ..."]:
        """One copy of each record, of its shape and on its device.

        Args:
            rng: lives on the CPU, so that copies are the same on every device.

        Raises:
            UsageError: it cannot copy such records.
        """

    def copies(self, x: Float[Tensor, "n ..."]) -> Iterator[Float[Tensor, "n ..."]]:
        """Every copy that it can make of these records, one of each at a time.

        Whoever looks for a record in traffic looks for each of these: an augmentation that lists fewer
        looks safer than it is. Unless a subclass lists them, the records as they are.
        """
        yield x


def augmented(
    recipe: Recipe,
    batch: Samples,
    positions: Int64[Tensor, " batch"],
    noise: torch.Generator,
    step: int,
    rows: Int64[Tensor, " n"] | None = None,
) -> Samples:
    """What a step learns from in place of a batch: copies, if the recipe says so.

    Args:
        batch: the records, or those of some rows.
        positions: of all the batch's records in the training data. Copies are drawn in their order, so
            that a record's copy does not depend on the row in which it stands.
        noise: its child ``augmentation/step`` draws the copies.
        rows: that ``batch`` holds; None = all, in order.

    Raises:
        UsageError: the augmentation cannot copy such records.
        PluginError: it gives something else than copies.
    """
    if recipe.augmentation is None:
        return batch
    x = batch.x
    if rows is not None:
        x = x.new_zeros(len(positions), *x.shape[1:]).index_copy_(0, rows, x)
    order = positions.argsort().to(x.device)
    made = _built(recipe.augmentation)(x[order], child_rng(noise, "augmentation", step))
    if made.shape != x.shape or made.dtype != x.dtype:
        raise PluginError(
            f"'{recipe.augmentation.target}' made {tuple(made.shape)} {made.dtype} of {tuple(x.shape)} "
            f"{x.dtype}; expected one copy of each record, of its shape and type"
        )
    copies = made[order.argsort()]
    return replace(batch, x=copies if rows is None else copies[rows])


def copies_of(recipe: Recipe | None, x: Float[Tensor, "n ..."]) -> Iterator[Float[Tensor, "n ..."]]:
    """Every copy of these records that training by a recipe may have learned from.

    Args:
        recipe: None = not known to whoever asks: then the records as they are.
    """
    if recipe is None or recipe.augmentation is None:
        yield x
    else:
        yield from _built(recipe.augmentation).copies(x)


def _built(spec: Spec) -> Augmentation:
    made = spec.build()
    if not isinstance(made, Augmentation):
        raise PluginError(
            f"'{spec.target}' makes no copies of records; expected a subclass of "
            "privbench.contract.Augmentation"
        )
    return made
