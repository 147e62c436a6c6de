"""LeNet-5: the small convolutional network of digit recognition."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from privbench.errors import UsageError
from privbench.models.checked import whole, wholes

ACTIVATIONS = ("relu", "sigmoid", "tanh")
SIDES = (28, 32)  # pixels: MNIST as published, and as LeCun padded it


class LeNet5(nn.Sequential):
    """Two 5x5 convolutions, each with an activation and pooling by 2, then three linear layers.

    Source: LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition,
    Proceedings of the IEEE 86(11), 1998, https://doi.org/10.1109/5.726791. This is the variant of
    today's tutorials: ReLU for the scaled tanh, maximum pooling for trainable sub-sampling, a full
    second convolution for one with missing connections, a linear layer for the radial-basis outputs.

    Input ``(n, channels, size, size)``, output ``(n, classes)``. Modules are called ``conv0``, ``relu0``
    (or ``tanh0``, …), ``pool0``, …, ``flatten``, ``linear0``, …; 61,706 parameters by default.

    Args:
        channels: of the input: 1 grey, 3 colour.
        size: pixels a side, 28 or 32. At 28 the first convolution pads by 2, which is what the
            original's 32 pixels did to MNIST.
        classes: number of outputs.
        convolutions: output channels of the two convolutions.
        widths: outputs of the two hidden linear layers.
        activation: ``relu``, or smooth ``sigmoid`` or ``tanh``, of which gradients can be matched by
            second-order methods.

    Raises:
        UsageError: an argument is out of range.

    Example::

        LeNet5(channels=3, size=32)(torch.rand(5, 3, 32, 32)).shape   # (5, 10)
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        classes: int = 10,
        convolutions: Sequence[int] = (6, 16),
        widths: Sequence[int] = (120, 84),
        activation: str = "relu",
    ) -> None:
        self._check_size(size)
        maps = (whole("channels", channels, 1), *wholes("convolutions", convolutions, (6, 16)))
        inner = wholes("widths", widths, (120, 84))
        kind = _activation(activation)
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after) in enumerate(pairwise(maps)):
            padding = 2 if number == 0 and size == 28 else 0
            modules[f"conv{number}"] = nn.Conv2d(before, after, 5, padding=padding)
            modules[f"{activation}{number}"] = kind()
            modules[f"pool{number}"] = nn.MaxPool2d(2)
        modules["flatten"] = nn.Flatten()
        features = (maps[-1] * 5 * 5, *inner, whole("classes", classes, 10))
        for number, (before, after) in enumerate(pairwise(features)):
            if number:
                modules[f"{activation}{number + 1}"] = kind()
            modules[f"linear{number}"] = nn.Linear(before, after)
        super().__init__(modules)
        self.channels, self.size, self.classes = channels, size, classes  # to be rebuilt from
        self.convolutions, self.widths, self.activation = maps[1:], inner, activation

    @staticmethod
    def _check_size(size: int) -> None:
        if type(size) is not int or size not in SIDES:
            raise UsageError(
                f"model.size={size}; LeNet-5 takes images of 28 or 32 pixels a side: choose data of that "
                "size (data=mnist, data=cifar10, data=images data.size=32), or model=alexnet, which takes "
                "any side from 8 upward"
            )


def _activation(name: str) -> type[nn.Module]:
    found: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
    if name not in found:
        raise UsageError(f"model.activation={name}; expected one of {', '.join(found)}")
    return found[name]
