"""The sigmoid network on which gradients were first inverted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.errors import UsageError
from privbench.models.checked import whole

WIDTH = 12  # channels of every convolution
SPREAD = 0.5  # weights are drawn between -0.5 and 0.5


class LeNetZhu(nn.Sequential):
    """Three 5x5 convolutions with sigmoids, the first two of stride 2, then one linear layer.

    Source: L. Zhu, Z. Liu, S. Han: Deep Leakage from Gradients, 2019, https://arxiv.org/abs/1906.08935,
    with their weights (all uniform between -0.5 and 0.5), in the form with which J. Geiping et al. (2020,
    https://arxiv.org/abs/2003.14053) measured. Smooth, without pooling: made to be inverted rather than
    to be good.

    Input ``(n, channels, size, size)``, output ``(n, classes)``. Modules are called ``norm`` (where asked
    for), ``conv0``, ``sigmoid0``, …, ``flatten``, ``linear``; 15,826 parameters by default.

    Args:
        channels: of the input: 1 grey, 3 colour.
        size: pixels a side, a multiple of 4.
        classes: number of outputs.
        mean, spread: what is taken off each input channel and what it is then divided by; none = inputs
            stay as they are.

    Raises:
        UsageError: an argument is out of range.

    Example::

        LeNetZhu()(torch.rand(5, 3, 32, 32)).shape   # (5, 10)
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        mean: Sequence[float] = (),
        spread: Sequence[float] = (),
    ) -> None:
        if type(size) is not int or size < 4 or size % 4:
            raise UsageError(
                f"model.size={size}; the sigmoid LeNet halves images twice: expected a multiple of 4"
            )
        features = whole("channels", channels, 1)
        if len(mean) != len(spread) or len(mean) not in (0, features) or 0 in spread:
            raise UsageError(
                f"model.mean={list(mean)}, model.spread={list(spread)}; expected none, or one number for "
                f"each of {features} channels, spreads above 0"
            )
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        if len(mean):
            modules["norm"] = _Normalised(mean, spread)
        for number, stride in enumerate((2, 2, 1)):
            modules[f"conv{number}"] = nn.Conv2d(
                features if number == 0 else WIDTH, WIDTH, 5, stride=stride, padding=2
            )
            modules[f"sigmoid{number}"] = nn.Sigmoid()
        modules["flatten"] = nn.Flatten()
        modules["linear"] = nn.Linear(WIDTH * (size // 4) ** 2, whole("classes", classes, 10))
        super().__init__(modules)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -SPREAD, SPREAD)
        self.channels, self.size, self.classes = channels, size, classes  # to be rebuilt from
        self.mean, self.spread = tuple(mean), tuple(spread)


class _Normalised(nn.Module):
    """Inputs in [0, 1] to the scale that the weights were meant for."""

    def __init__(self, mean: Sequence[float], spread: Sequence[float]) -> None:
        super().__init__()
        self._mean = torch.tensor(mean)[:, None, None]
        self._spread = torch.tensor(spread)[:, None, None]

    def forward(self, x: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        return (x - self._mean.to(x)) / self._spread.to(x)
