"""Answers queries to the released model, and counts them."""

from __future__ import annotations

import torch
from torch import Tensor

from privbench.contract import Net, Seat
from privbench.errors import AttackError


class CountingOracle:
    """A released model behind a counter.

    Args:
        net: the model.
        limit: inputs it will answer, None = any number.
        seat: decides whether it answers with probabilities, or with labels alone.
    """

    def __init__(self, net: Net, limit: int | None, seat: Seat, device: str = "cpu") -> None:
        self.count = 0
        self.limit = limit
        self._labels = "oracle_probabilities" not in seat.grants
        self._module = net.module().to(device)
        self._device = device

    def __call__(self, x: Tensor) -> Tensor:
        """Probabilities ``(n, classes)`` or labels ``(n,)`` for inputs ``(n, *shape)``.

        Raises:
            AttackError: the query budget is spent.
        """
        if self.limit is not None and self.count + len(x) > self.limit:
            raise AttackError(
                f"the query budget is spent: {self.count} of {self.limit} inputs were answered and "
                f"{len(x)} more were asked; raise threat.budget.queries or ask for less"
            )
        self.count += len(x)
        with torch.no_grad():
            probabilities = self._module(x.to(self._device)).softmax(dim=1).cpu()
        return probabilities.argmax(dim=1) if self._labels else probabilities
