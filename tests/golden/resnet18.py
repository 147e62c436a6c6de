"""ResNet-18 for images of 32x32 pixels, with the batch norm that membership papers attack."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm0, self.norm1 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.second(F.relu(self.norm0(self.first(x)))))
        return F.relu(y + self.shortcut(x))


def resnet18() -> nn.Module:
    """He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016,
    https://arxiv.org/abs/1512.03385, table 1, with a 3x3 convolution and no pooling before its blocks."""
    blocks, before = [], 64
    for stage, after in enumerate((64, 128, 256, 512)):
        for number in range(2):
            blocks.append(_Block(before, after, 2 if stage and not number else 1))
            before = after
    first = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    rest = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))
    return nn.Sequential(first, nn.BatchNorm2d(64), nn.ReLU(), *blocks, *rest)
