"""A multilayer perceptron: the reference network of the comparison."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from privbench.errors import UsageError


class Mlp(nn.Sequential):
    """Flatten, then linear layers with a ReLU between each two.

    Modules are called ``flatten``, ``linear0``, ``relu0``, ``linear1``, … so that state-dict names tell
    where a tensor belongs.

    Args:
        widths: features of the flattened input, of each hidden layer, and number of classes.

    Raises:
        UsageError: fewer than two widths, or one that is no positive whole number.

    Example::

        Mlp(widths=(64, 128, 10))(torch.rand(5, 1, 8, 8)).shape   # (5, 10)
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 64, 32, 10)) -> None:
        sound = isinstance(widths, Sequence) and all(type(w) is int and w > 0 for w in widths)
        if not sound or len(widths) < 2:
            raise UsageError(
                f"model.widths={widths}; expected a list of at least two positive whole numbers, "
                "for example model.widths=[64,128,10]"
            )
        modules: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for number, (width, following) in enumerate(pairwise(widths)):
            if number:
                modules[f"relu{number - 1}"] = nn.ReLU()
            modules[f"linear{number}"] = nn.Linear(width, following)
        super().__init__(modules)
        self.widths = tuple(widths)  # a trained one is rebuilt from its attributes
