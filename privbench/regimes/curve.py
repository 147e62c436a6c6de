"""The loss of training, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

POINTS = 256  # of a curve that is told: more than a plot of it can show


class Curve:
    """Collects losses while training goes on.

    Nothing is read from the device before it is asked for.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []

    def add(self, loss: Tensor | None) -> None:
        """The loss of a batch, a scalar; None = there was no step."""
        if loss is not None:
            self._losses.append(loss.detach())

    def points(self) -> tuple[float, ...]:
        """Losses in order; of a long training the means over at most ``POINTS`` equal spans of steps."""
        return told(self._losses)


def told(losses: Sequence[Tensor]) -> tuple[float, ...]:
    """See ``Curve.points``."""
    if not losses:
        return ()
    values = torch.stack(list(losses)).double().cpu()
    spans = values.tensor_split(min(POINTS, len(values)))
    return tuple(float(span.mean()) for span in spans)


def mean_of(curves: Sequence[Curve]) -> tuple[float, ...]:
    """The mean of several curves side by side (clients that train at once), as ``points``."""
    longest = max((len(curve._losses) for curve in curves), default=0)
    side_by_side = [
        torch.stack([c._losses[step] for c in curves if step < len(c._losses)]).mean()
        for step in range(longest)
    ]
    return told(side_by_side)
