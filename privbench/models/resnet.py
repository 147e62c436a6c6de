"""Residual networks for small images, with group norm."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from privbench.errors import UsageError
from privbench.models.checked import flag, whole, wholes

REDUCTION = (
    4  # channels to hidden ones in a squeeze-and-excite gate (16 in the source's wide networks)
)


class ResNet(nn.Module):
    """A 3x3 convolution, three stages of residual blocks, mean pooling, one linear layer.

    Sources: He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016,
    https://arxiv.org/abs/1512.03385 (section 4.2: depth 6 blocks + 2); Wu, He: Group normalization,
    ECCV 2018, https://arxiv.org/abs/1803.08494. It differs from the first in group norm for batch
    norm, which looks at other people's samples, and in 1x1 convolutions where a shortcut changes
    shape, for padding with zeros.

    Input ``(n, channels, size, size)``, output ``(n, classes)``. Every activation is a module of its own,
    and every residual addition is one ``+`` of the traced graph. 78,042 parameters by default (ResNet-8).

    Args:
        channels: of the input: 1 grey, 3 colour.
        size: pixels a side, at least 4.
        classes: number of outputs.
        blocks: residual blocks a stage: 1, 2, 3 give ResNet-8, ResNet-14, ResNet-20.
        widths: channels of the three stages; the second and third halve the side.
        groups: of channels that share their mean and variance; divides each of ``widths``.
        se: squeeze-and-excite gates (Hu, Shen, Sun, CVPR 2018, https://arxiv.org/abs/1709.01507).
        depthwise: each 3x3 convolution of a block as a depth-wise and a 1x1 one (Howard et al.:
            MobileNets, 2017, https://arxiv.org/abs/1704.04861).

    Raises:
        UsageError: an argument is out of range.

    Example::

        ResNet(blocks=3)(torch.rand(5, 3, 32, 32)).shape   # (5, 10)
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        blocks: int = 1,
        widths: Sequence[int] = (16, 32, 64),
        groups: int = 8,
        se: bool = False,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.classes = whole("channels", channels, 3), whole("classes", classes, 10)
        self.size, self.blocks = whole("size", size, 32, least=4), whole("blocks", blocks, 1)
        self.widths = wholes("widths", widths, (16, 32, 64))
        self.groups = _dividing(whole("groups", groups, 8), self.widths)
        self.se, self.depthwise = flag("se", se), flag("depthwise", depthwise)
        before, side = self.widths[0], self.size
        self.conv = nn.Conv2d(channels, before, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups, before)
        self.relu = nn.ReLU()
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, width in enumerate(self.widths):
            for number in range(blocks):
                stride = 2 if stage and not number else 1
                side = -(-side // stride)
                stages[f"block{len(stages)}"] = Residual(
                    before, width, groups=groups, stride=stride, se=se, depthwise=depthwise
                )
                before = width
        self.stages = nn.Sequential(stages)
        self.pool = nn.AvgPool2d(side)  # static: a network for 32 pixels refuses 28
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(before, classes)

    def forward(self, x: Float[Tensor, "n channels size size"]) -> Float[Tensor, "n classes"]:
        """Logits."""
        x = self.stages(self.relu(self.norm(self.conv(x))))
        return self.linear(self.flatten(self.pool(x)))


class Residual(nn.Module):
    """Two 3x3 convolutions with group norm, added to what came in.

    Input ``(n, before, h, w)``, output ``(n, after, h / stride, w / stride)``.
    """

    def __init__(
        self, before: int, after: int, *, groups: int, stride: int, se: bool, depthwise: bool
    ) -> None:
        super().__init__()
        convolution = _separable if depthwise else _dense
        self.conv0 = convolution(before, after, groups, stride)
        self.norm0 = nn.GroupNorm(groups, after)
        self.relu0 = nn.ReLU()
        self.conv1 = convolution(after, after, groups, 1)
        self.norm1 = nn.GroupNorm(groups, after)
        self.gate = Gate(after) if se else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if (before, stride) != (after, 1):
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(before, after, 1, stride, bias=False),
                    norm=nn.GroupNorm(groups, after),
                )
            )
        self.relu1 = nn.ReLU()

    def forward(self, x: Float[Tensor, "n before h w"]) -> Float[Tensor, "n after h2 w2"]:
        """The block's output, behind its last ReLU."""
        y = self.relu0(self.norm0(self.conv0(x)))
        y = self.gate(self.norm1(self.conv1(y)))
        return self.relu1(y + self.shortcut(x))


class Gate(nn.Module):
    """Squeeze-and-excite: each channel times a number in (0, 1) that depends on all channels' means.

    Hu, Shen, Sun: Squeeze-and-excitation networks, CVPR 2018, https://arxiv.org/abs/1709.01507; 1x1
    convolutions for the linear layers there, which compute the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, max(1, channels // REDUCTION), 1)
        self.relu = nn.ReLU()
        self.excite = nn.Conv2d(max(1, channels // REDUCTION), channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The gated maps."""
        return x * self.sigmoid(self.excite(self.relu(self.squeeze(self.pool(x)))))


def _dense(before: int, after: int, groups: int, stride: int) -> nn.Module:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False)


def _separable(before: int, after: int, groups: int, stride: int) -> nn.Module:
    """A convolution of each channel alone, norm, ReLU, then one of all channels at each pixel."""
    return nn.Sequential(
        OrderedDict(
            depth=nn.Conv2d(before, before, 3, stride, padding=1, groups=before, bias=False),
            norm=nn.GroupNorm(groups, before),
            relu=nn.ReLU(),
            point=nn.Conv2d(before, after, 1, bias=False),
        )
    )


def _dividing(groups: int, widths: Sequence[int]) -> int:
    uneven = [width for width in widths if width % groups]
    if uneven:
        raise UsageError(
            f"model.groups={groups} does not divide {uneven[0]} channels (model.widths="
            f"{list(widths)}); expected a divisor of each, for example model.groups=1"
        )
    return groups
