"""A network of the scorer's own that judges rebuilt inputs, trained on records kept for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from privbench.contract import Net, Samples, Spec, child_rng
from privbench.errors import DataError

STEPS = 300
BATCH = 128
RATE = 0.1
SMALLEST = 12  # pixels a side from which convolutions pay


def is_image(shape: Sequence[int]) -> bool:
    """Channels first, and more than one pixel each way?"""
    return len(shape) == 3 and min(shape[1:]) > 1


def perceives(shape: Sequence[int]) -> bool:
    """Are images of this shape large enough for an evaluator of convolutions?"""
    return is_image(shape) and min(shape[1:]) >= SMALLEST


class Evaluator(nn.Module):
    """A small classifier of another make than the targets: convolutions on images, else one wide layer.

    Args:
        shape: of one input.
        classes: number of labels.
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if perceives(shape):
            self.body: nn.Module = nn.Sequential(
                nn.Conv2d(shape[0], 16, 3, padding=1, stride=2),
                nn.GELU(),
                nn.Conv2d(16, 32, 3, padding=1, stride=2),
                nn.GELU(),
                nn.AdaptiveAvgPool2d(3),
                nn.Flatten(),
                nn.Linear(288, classes),
            )
        else:
            size = int(torch.tensor(shape).prod())
            self.body = nn.Sequential(
                nn.Flatten(), nn.Linear(size, 256), nn.GELU(), nn.Linear(256, classes)
            )

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
        """Logits."""
        return self.body(x)


def train_evaluator(
    records: Samples, classes: int, rng: torch.Generator, device: str = "cpu"
) -> Net:
    """Train on the evaluator's records, batches drawn with replacement.

    300 steps of gradient descent with momentum 0.9, written out: importing a torch optimiser takes
    longer than this training.
    """
    shape = tuple(records.x.shape[1:])
    spec = Spec(f"{__name__}.Evaluator", {"shape": shape, "classes": classes})
    net = Net(spec).initialised(child_rng(rng, "init"))
    module = net.module().to(device).train()
    parameters = list(module.parameters())
    speed = [torch.zeros_like(parameter) for parameter in parameters]
    draws = child_rng(rng, "batches")
    x, y = records.x.to(device), _labels(records).to(device)
    for _ in range(STEPS):
        batch = torch.randint(len(records), (min(BATCH, len(records)),), generator=draws).to(device)
        slopes = torch.autograd.grad(F.cross_entropy(module(x[batch]), y[batch]), parameters)
        with torch.no_grad():
            for parameter, velocity, slope in zip(parameters, speed, slopes, strict=True):
                velocity.mul_(0.9).add_(slope)
                parameter.sub_(RATE * velocity)
    return net.holding(module)


def judged(
    module: nn.Module, x: Float[Tensor, "n ..."], device: str = "cpu"
) -> Int64[Tensor, " n"]:
    """The class that the evaluator sees in each input."""
    with torch.no_grad():
        return torch.cat([module(part.to(device)).argmax(dim=1).cpu() for part in x.split(1000)])


def perceptual(
    module: nn.Module, x: Float[Tensor, "n ..."], y: Float[Tensor, "n ..."], device: str = "cpu"
) -> np.ndarray:
    """How far two images are apart for the evaluator: 0 for equal ones, at most 4.

    R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang: The Unreasonable Effectiveness of Deep
    Features as a Perceptual Metric, CVPR 2018, https://arxiv.org/abs/1801.03924. We differ: the network
    is the evaluator (no downloaded one), and its channels are not weighted by human judgements.

    Args:
        module: an ``Evaluator`` of images.
    """
    found = []
    for mine, theirs in zip(x.split(500), y.split(500), strict=True):
        with torch.no_grad():
            pairs = zip(
                _features(module, mine.to(device)),
                _features(module, theirs.to(device)),
                strict=True,
            )
            gaps = [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]
        found.append(torch.stack(gaps).mean(dim=0).double().cpu())
    return torch.cat(found).numpy() if found else np.empty(0)


def _features(module: nn.Module, x: Float[Tensor, "n c h w"]) -> list[Tensor]:
    """After each activation, at each position a vector of unit length over the channels."""
    found = []
    for part in module.body:  # type: ignore[union-attr]
        x = part(x)
        if isinstance(part, nn.GELU):
            found.append(x / x.norm(dim=1, keepdim=True).clamp(min=1e-8))
    return found


def _labels(records: Samples) -> Tensor:
    if records.y is None:
        raise DataError("expected labelled records for the evaluator, got inputs alone")
    return records.y
