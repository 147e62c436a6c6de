"""An AlexNet-style convolutional network for small images: the benchmark network of SliceNet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from privbench.models.checked import share, whole, wholes

POOLED = (0, 1, 4)  # convolutions with pooling behind them: first, second, fifth, as in the source


class AlexNet(nn.Sequential):
    """Five 3x3 convolutions, pooling by 2 behind the first, second and fifth, then three linear layers.

    Source: Krizhevsky, Sutskever, Hinton: ImageNet classification with deep convolutional neural
    networks, NeurIPS 2012, https://papers.nips.cc/paper/4824; the default widths are those of
    Krizhevsky: One weird trick for parallelizing convolutional neural networks, 2014,
    https://arxiv.org/abs/1404.5997, with narrower linear layers. It differs from the source where
    images are small: kernels of 3x3 and stride 1 throughout (there 11x11 with stride 4, 5x5, 3x3),
    pooling windows that do not overlap, no local response normalisation, one tower for two, and
    initial weights as in He, Zhang, Ren, Sun: Delving deep into rectifiers, ICCV 2015,
    https://arxiv.org/abs/1502.01852 (but for the last layer), with which plain SGD trains eight layers.

    By default, cut into blocks of 4 output channels, it has 675 vertices: 19 in stem and tail, 656 in
    the body (ours: SliceNet's paper names no widths; this is our reading of it). 6,976,842 parameters.

    Pooling stands before ReLU: the same function and the same gradients, for the largest of a window
    stays the largest, with a quarter of the work.

    Input ``(n, channels, size, size)``, output ``(n, classes)``. Modules are called ``conv0``, ``pool0``,
    ``relu0``, …, ``flatten``, ``linear0``, …, so that state-dict names tell where a tensor belongs.

    Args:
        channels: of the input: 1 grey, 3 colour.
        size: pixels a side, at least 8.
        classes: number of outputs.
        convolutions: output channels of the five convolutions.
        widths: outputs of the two hidden linear layers.
        dropout: share of the inputs of each hidden linear layer that is left out; 0 = no such modules.

    Raises:
        UsageError: an argument is out of range.

    Example::

        AlexNet()(torch.rand(5, 3, 32, 32)).shape   # (5, 10)
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        convolutions: Sequence[int] = (64, 192, 384, 256, 256),
        widths: Sequence[int] = (1024, 512),
        dropout: float = 0.0,
    ) -> None:
        example = (64, 192, 384, 256, 256)
        maps = (whole("channels", channels, 3), *wholes("convolutions", convolutions, example))
        inner = wholes("widths", widths, (1024, 512))
        side = whole("size", size, 32, least=8) // 2 ** len(POOLED)
        left_out = share("dropout", dropout)
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for number, (before, after) in enumerate(pairwise(maps)):
            modules[f"conv{number}"] = nn.Conv2d(before, after, 3, padding=1)
            if number in POOLED:
                modules[f"pool{number}"] = nn.MaxPool2d(2)
            modules[f"relu{number}"] = nn.ReLU()
        features = (maps[-1] * side * side, *inner, whole("classes", classes, 10))
        for number, (before, after) in enumerate(pairwise(features)):
            if left_out and number < len(inner):
                modules[f"dropout{number}"] = nn.Dropout(left_out)
            if number == 0:
                modules["flatten"] = (
                    nn.Flatten()
                )  # behind dropout, which so stays with its channels
            modules[f"linear{number}"] = nn.Linear(before, after)
            if number < len(inner):
                modules[f"relu{number + 5}"] = nn.ReLU()
        super().__init__(modules)
        self._initialise()
        self.channels, self.size, self.classes = channels, size, classes  # to be rebuilt from
        self.convolutions, self.widths, self.dropout = maps[1:], inner, left_out

    def _initialise(self) -> None:
        """Draw weights by which signals neither fade nor grow from layer to layer."""
        layers = [each for each in self if isinstance(each, nn.Conv2d | nn.Linear)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, layer.bias))
        nn.init.normal_(
            layers[-1].weight, std=0.01
        )  # as in the source: the first outputs are near 0
