"""The network of Opacus' MNIST example, and its scaling of pixels."""

from __future__ import annotations

from he_nets import Normalise
from torch import nn


def example() -> nn.Module:
    """Two convolutions with overlapping pools, two linear layers; 28x28 grey images in [0, 1]."""
    return nn.Sequential(
        Normalise((0.1307,), (0.3081,)),
        nn.Conv2d(1, 16, 8, 2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
