"""Networks that the twin computes, and one that it does not."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


class Chain(nn.Sequential):
    """Convolutions (3x3, padding 1, ReLU, pooling by 2), then linear layers with ReLU between."""

    def __init__(self, side: int, channels: list[int], widths: list[int]) -> None:
        found: OrderedDict[str, nn.Module] = OrderedDict()
        before = 1
        for number, after in enumerate(channels):
            found[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1)
            found[f"act{number}"] = nn.ReLU(inplace=True)
            found[f"pool{number}"] = nn.MaxPool2d(2)
            before, side = after, side // 2
        found["flatten"] = nn.Flatten()
        before = before * side * side
        for number, after in enumerate(widths):
            if number:
                found[f"relu{number}"] = nn.ReLU()
            found[f"linear{number}"] = nn.Linear(before, after)
            before = after
        super().__init__(found)


def dropped() -> nn.Sequential:
    """A chain with dropout, which the twin does not compute: compared with centralized alone."""
    layers = [nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 8), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(8, 5), nn.Dropout(0.2), nn.Linear(5, 3))
