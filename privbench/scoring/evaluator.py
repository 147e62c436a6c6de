"""A network of the scorer's own that judges rebuilt inputs, trained on records kept for it."""

from __future__ import annotations

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


class Evaluator(nn.Module):
    """A small classifier of another make than the targets: convolutions on images, else one wide layer.

    Args:
        shape: of one input.
        classes: number of labels.
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        image = len(shape) == 3 and min(shape[1:]) >= SMALLEST
        if image:
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
) -> nn.Module:
    """Train on the evaluator's records, batches drawn with replacement.

    300 steps of gradient descent with momentum 0.9, written out: importing a torch optimiser takes
    longer than this training.
    """
    shape = tuple(records.x.shape[1:])
    spec = Spec(f"{__name__}.Evaluator", {"shape": shape, "classes": classes})
    module = Net(spec).initialised(child_rng(rng, "init")).module().to(device).train()
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
    return module.eval()


def judged(
    module: nn.Module, x: Float[Tensor, "n ..."], device: str = "cpu"
) -> Int64[Tensor, " n"]:
    """The class that the evaluator sees in each input."""
    with torch.no_grad():
        return torch.cat([module(part.to(device)).argmax(dim=1).cpu() for part in x.split(1000)])


def _labels(records: Samples) -> Tensor:
    if records.y is None:
        raise DataError("expected labelled records for the evaluator, got inputs alone")
    return records.y
