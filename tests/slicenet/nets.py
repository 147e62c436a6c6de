"""Networks that the twin computes, and one that it does not."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F


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


class Block(nn.Module):
    """A residual block with group norm and, if asked, squeeze-and-excite."""

    def __init__(self, before: int, after: int, squeeze: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(2, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(2, after)
        self.short = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        parts = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(after, 2, 1), nn.ReLU(inplace=True)]
        gate = nn.Sequential(*parts, nn.Conv2d(2, after, 1), nn.Sigmoid())
        self.gate = gate if squeeze else None

    def forward(self, x):
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        y = y * self.gate(y) if self.gate else y
        return torch.relu(y + self.short(x))


class Residual(nn.Module):
    """Residual blocks behind a convolution, then the mean over positions."""

    def __init__(self, squeeze: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(4, 4, squeeze), Block(4, 6, squeeze))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x), inplace=True), 2)
        return self.head(self.blocks(x).mean(dim=(2, 3)))


class Mobile(nn.Module):
    """Depth-wise and grouped convolutions side by side, concatenated; batch norm in the body; dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.point = nn.Conv2d(14, 5, 1)
        self.drop = nn.Dropout(0.3)
        self.hidden = nn.Linear(5 * 4, 7)
        self.head = nn.Linear(7, 4)

    def forward(self, x):
        x = F.max_pool2d(torch.tanh(self.stem(x)), 2)
        both = torch.cat([F.relu(self.norm(self.deep(x))), torch.sigmoid(self.grouped(x))], dim=1)
        x = F.avg_pool2d(F.elu(self.point(both)), 2)
        x = self.drop(x.flatten(1))
        return self.head(F.relu(self.hidden(x)))


class Dense(nn.Module):
    """Every layer sees all before it, also the tail; pre-activation behind a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(16, 5)
        self.b = nn.Linear(5, 4)
        self.c = nn.Linear(9, 3)
        self.d = nn.Linear(12, 4)

    def forward(self, x):
        a = torch.relu(self.a(x.flatten(1)))
        b = self.b(a)
        ab = torch.tanh(torch.cat([a, b], dim=1))
        c = self.c(ab)
        return self.d(torch.cat([b * 0.5, c, a], 1))


class Attention(nn.Module):
    """A transformer block: attention and a perceptron, each on a normed value, with residuals."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attend(y, y, y, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Patches(nn.Module):
    """Patch embedding with positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cut = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 4, width) * 0.1)

    def forward(self, x):
        return self.cut(x).flatten(2).transpose(1, 2) + self.places


class Transformer(nn.Module):
    """A small transformer for 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = Patches(6)
        self.blocks = nn.Sequential(Attention(6), Attention(6))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.blocks(self.embed(x)).mean(dim=1))


class Gated(nn.Module):
    """Branches on values: nobody can trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else x


class Opaque(nn.Module):
    """A module that cannot be traced, one that is used twice, and a parameter at the outermost level."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gated, self.twice = nn.Linear(16, 5), Gated(), nn.Linear(5, 5)
        self.shift = nn.Parameter(torch.ones(5))
        self.last = nn.Linear(5, 4)

    def forward(self, x):
        batch, _, _, _ = x.shape
        x = self.gated(torch.relu(self.first(x.reshape(batch, 16))))
        x = self.twice(torch.relu(self.twice(x)))
        return F.log_softmax(self.last(x * self.shift + x), dim=1)


class Side(nn.Module):
    """A normed layer that the tail alone needs, past the body; with two stem layers it is one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 4), nn.Linear(16, 4)
        self.norm = nn.GroupNorm(2, 4)
        self.c, self.d = nn.Linear(4, 5), nn.Linear(9, 4)

    def forward(self, x):
        x = x.flatten(1)
        a, b = self.norm(self.a(x)), torch.tanh(self.b(x))
        return self.d(torch.cat([torch.relu(self.c(b)), a], dim=1))
