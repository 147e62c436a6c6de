"""Networks that devices alone must train as one machine does, and the reference models, small."""

from __future__ import annotations

import torch
from crowds import mlp
from torch import nn
from torch.nn import functional as F

from privbench.contract import Spec


class Residual(nn.Module):
    """A skip around a grouped and a depth-wise convolution, norms, a gate, a concatenation, dropout."""

    def __init__(self, channels=4, classes=4):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.group = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(4, 2 * channels)
        self.depth = nn.Conv2d(
            2 * channels, 2 * channels, 3, padding=1, groups=2 * channels, bias=False
        )
        self.point = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.batch = nn.BatchNorm2d(channels)
        self.squeeze = nn.Conv2d(channels, 2, 1)
        self.excite = nn.Conv2d(2, channels, 1)
        self.prelu = nn.PReLU(2 * channels)
        self.drop = nn.Dropout(0.3)
        self.flat = nn.Linear(2 * channels * 4, 6, bias=False)
        self.norm1 = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = torch.relu(self.norm(self.group(x)))
        y = self.batch(self.point(self.depth(y)))
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        y = F.max_pool2d(y + x, 2)
        y = torch.cat([y, F.avg_pool2d(x, 2)], dim=1)
        y = self.drop(self.prelu(y))
        return self.last(F.relu(self.norm1(self.flat(y.flatten(1)))))


class Shared(nn.Sequential):
    """A PReLU of one number, behind a norm of the samples themselves; some tensors are frozen."""

    def __init__(self):
        super().__init__(
            nn.GroupNorm(3, 9), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 8), nn.PReLU(),
            nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 4),
        )  # fmt: skip
        for tensor in (self[1].bias, self[5].weight, self[9].bias):
            tensor.requires_grad_(False)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.one = nn.Linear(9, 8), nn.Linear(8, 8)
        self.two, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.last(torch.tanh(self.two(torch.tanh(self.one(torch.tanh(self.first(x)))))))


class Skips(nn.Module):
    """The tail works on all that came before it."""

    def __init__(self):
        super().__init__()
        self.first, self.one = nn.Linear(9, 8), nn.Linear(8, 8)
        self.two, self.last = nn.Linear(8, 8), nn.Linear(24, 4)

    def forward(self, x):
        a = torch.tanh(self.first(x))
        b = torch.tanh(self.one(a))
        c = torch.tanh(self.two(b))
        return F.log_softmax(self.last(torch.cat([a, b, c], dim=1)), dim=1)


class Opaque(nn.Module):
    """A transformer's layer with dropout and a recurrent one, both taken whole, and a fixed table."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(1, 4, 1)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        self.scale = Scale()
        self.recurrent = nn.LSTM(4, 5, batch_first=True)
        self.hidden, self.last = nn.Linear(45, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = self.encoder(torch.tanh(self.first(x)).transpose(1, 2))
        x, _ = self.recurrent(self.scale(x))
        return self.last(torch.relu(self.hidden(x.flatten(1))))


class Scale(nn.Module):
    """Parameters and buffers that are used as they are."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(4.0) / 4, persistent=False)
        self.register_buffer("kept", torch.rand(4))
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return x * self.table + self.kept * self.weight


class Odd(nn.Module):
    """Circular and same padding, dilation, strides, groups, instance norm, dropout of whole channels.

    No biases before the norm: it removes them, and Adam would divide the rounding of their gradients
    (zero) by itself.
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.round = nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=False)
        self.same = nn.Conv2d(4, 2, 3, padding="same", dilation=2, bias=False)
        self.group = nn.Conv2d(8, 12, 3, stride=2, groups=4, bias=False)
        self.drop, self.norm = nn.Dropout2d(0.3), nn.InstanceNorm2d(12, affine=True)
        self.hidden, self.last = nn.Linear(12, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.first(x))
        y = torch.cat([self.round(x), self.same(x)], dim=1)
        y = F.relu(self.norm(self.drop(self.group(y))))
        return self.last(torch.relu(self.hidden(y.amax((2, 3)))))


def own(name: str) -> Spec:
    """A network of this file."""
    return Spec(f"device_nets.{name}")


def reference(name: str, **settings) -> Spec:
    """One of ours, with four classes."""
    return Spec(f"privbench.models.{name}", {"classes": 4, **settings})


ALEXNET = {"convolutions": [3, 4, 5, 4, 4], "widths": [6, 5], "dropout": 0.3}
RESNET = {"widths": [4, 6, 8], "groups": 2, "se": True, "depthwise": True}
TRANSFORMER = {"patch": 4, "width": 8, "depth": 2, "heads": 2, "expansion": 2}
SMALL = {"channels": 1, "size": 8}
NETS = {
    "mlp": (mlp(9, 8, 7, 6, 4), (1, 3, 3)),
    "conv": (Spec("nets.Chain", {"side": 8, "channels": [3, 5, 4], "widths": [6, 4]}), (1, 8, 8)),
    "residual": (own("Residual"), (1, 4, 4)),
    "shared": (own("Shared"), (9,)),
    "tied": (own("Tied"), (9,)),
    "skips": (own("Skips"), (9,)),
    "opaque": (own("Opaque"), (1, 9)),
    "odd": (own("Odd"), (1, 6, 6)),
    "lenet": (reference("lenet.LeNet5"), (1, 28, 28)),
    "alexnet": (reference("alexnet.AlexNet", **SMALL, **ALEXNET), (1, 8, 8)),
    "resnet": (reference("resnet.ResNet", **SMALL, **RESNET), (1, 8, 8)),
    "transformer": (reference("transformer.Transformer", **SMALL, **TRANSFORMER), (1, 8, 8)),
}
"""By name: a network and the shape of its samples."""
QUICK = ("residual",)
"""Of these, what the quick suite trains."""
