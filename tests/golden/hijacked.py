"""The network of the feature-space hijacking figure."""

from __future__ import annotations

from torch import nn


class Hijacked(nn.Sequential):
    """Two convolutions at the client, whose values are 32 x 7 x 7; a small classifier at the server."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 32, 3, 2, 1),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )
