"""The loss where a host computes it: on the logits that it gathered and the labels that owners sent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Scorer:
    """Belongs to the host of the last layer, where labels are shared.

    Args:
        loss: ``(n, classes)`` outputs and ``(n,)`` labels to the mean loss, a scalar.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._loss = loss
        self._labels = torch.empty(0, dtype=torch.int64)
        self.loss = 0.0

    def begin(self, batch: int) -> None:
        """A step with so many rows, of which no label is known yet."""
        self._labels = torch.full((batch,), -1)
        self.loss = 0.0

    def hear(self, rows: Int64[Tensor, " k"], labels: Int64[Tensor, " k"]) -> None:
        """The labels of some rows."""
        self._labels[rows] = labels

    def slope(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """The gradient of the mean loss with respect to the logits of all rows."""
        entry = logits.detach().requires_grad_()
        loss = self._loss(entry, self._labels)
        self.loss = float(loss.detach())
        (found,) = torch.autograd.grad(loss, [entry])
        return found
