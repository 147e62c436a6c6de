"""A network with running statistics."""

from collections import OrderedDict

from torch import nn


def normed() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            linear0=nn.Linear(6, 6),
            act0=nn.ReLU(),
            linear1=nn.Linear(6, 8),
            norm1=nn.BatchNorm1d(8),
            act1=nn.ReLU(),
            linear2=nn.Linear(8, 4),
        )
    )
