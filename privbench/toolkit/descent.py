"""Search for inputs by gradient descent: many at once, none touching another."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Public, counted
from privbench.errors import UsageError
from privbench.toolkit.priors import GREY, expected, is_image, mean_variation_slope, typical

SCHEDULES = ("cosine", "constant")
STARTS = ("typical", "mean", "grey")

Errors = Callable[[Tensor], Tensor]
"""Inputs ``(*many, *shape)`` to how far each is from what was seen, ``(*many,)``."""


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Adam on errors plus total variation, each input by itself.

    D. P. Kingma, J. Ba: Adam: A Method for Stochastic Optimization, 2014,
    https://arxiv.org/abs/1412.6980; ``amsgrad`` is that of S. J. Reddi, S. Kale, S. Kumar: On the
    Convergence of Adam and Beyond, 2018, https://arxiv.org/abs/1904.09237.

    Args:
        steps: of Adam.
        rate: of a step.
        smooth: weight of an image's mean total variation beside its error.
        power: of neighbouring pixels' differences: 1 keeps edges, 2 blurs them.
        schedule: ``cosine`` (rate and ``smooth`` fall to 0 along a half cosine: first the prior says
            where to look, in the end what was seen decides) or ``constant``.
        amsgrad: does the scale of a step never grow?
        eps: added to that scale.
        spread: by what inputs are divided before the network sees them, one number or one a channel:
            ``rate``, ``smooth`` and ``eps`` are in units of that.
        boxed: are inputs kept in [0, 1] on the way, or only at the end?

    Raises:
        UsageError: a setting is out of range.
    """

    steps: int
    rate: float
    smooth: float
    power: int = 1
    schedule: str = "cosine"
    amsgrad: bool = False
    eps: float = 1e-12
    spread: float | tuple[float, ...] = 1.0
    boxed: bool = True

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UsageError(
                f"attack.schedule={self.schedule}; expected one of {', '.join(SCHEDULES)}"
            )
        if self.power not in (1, 2):
            raise UsageError(
                f"attack.power={self.power}; expected 1 (absolute differences) or 2 (squared)"
            )
        if self.steps < 1:
            raise UsageError(f"attack.steps={self.steps}; expected at least 1")

    def run(
        self, errors: Errors, start: Float[Tensor, "*many_and_shape"], axes: int
    ) -> Float[Tensor, "*many_and_shape"]:
        """The inputs where the search ends, in [0, 1].

        Args:
            errors: of every input; its own must depend on no other.
            start: inputs to begin at, on the device where to compute.
            axes: how many of the last axes are one input's.
        """
        x = start.detach().clone()
        spread = _spread(self.spread, x, axes)
        images = is_image(x.shape[x.ndim - axes :]) and self.smooth > 0
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        largest = torch.zeros_like(x)
        for step in counted(range(self.steps)):
            x.requires_grad_()
            (slope,) = torch.autograd.grad(errors(x).sum(), x)
            x = x.detach()
            slope = slope * spread
            if images:
                prior = mean_variation_slope(x / spread, self.power)
                slope = slope.add_(prior, alpha=self.smooth * self._share(step))
            mean.mul_(0.9).add_(slope, alpha=0.1)
            square.mul_(0.999).addcmul_(slope, slope, value=0.001)
            used = torch.maximum(largest, square, out=largest) if self.amsgrad else square
            scale = (used / (1 - 0.999 ** (step + 1))).sqrt_().add_(self.eps)
            length = self.rate * self._share(step) / (1 - 0.9 ** (step + 1))
            x = x - length * spread * mean / scale
            if self.boxed:
                x = x.clamp_(0, 1)
        return x.clamp_(0, 1)

    def _share(self, step: int) -> float:
        """What is left of rate and smoothness."""
        if self.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * step / self.steps)) / 2


def started(start: str, public: Public, shape: tuple[int, ...]) -> Tensor:
    """Where a search begins.

    Args:
        start: ``typical`` (each pixel's median over the auxiliary inputs: the background), ``mean`` or
            ``grey``.

    Raises:
        UsageError: another word.
    """
    if start not in STARTS:
        raise UsageError(f"attack.start={start}; expected one of {', '.join(STARTS)}")
    if start == "grey":
        return torch.full(shape, GREY)
    return typical(public, shape) if start == "typical" else expected(public, shape)


def apart(
    target: Float[Tensor, "*many_and_shape"],
    weight: Float[Tensor, "*many_and_shape"],
    relative: bool,
    many: int = 2,
) -> Errors:
    """The mean squared error of activations over what was seen of them.

    Args:
        target: what was seen.
        weight: 1 where it was seen, else 0.
        relative: divide by the variance of what was seen of that input?
        many: how many of the first axes run over inputs.
    """
    count = weight.flatten(many).sum(dim=-1).clamp(min=1)
    scale = count
    if relative:
        centre = ((target * weight).flatten(many).sum(dim=-1) / count).view(
            *count.shape, *(1 for _ in target.shape[many:])
        )
        varied = (weight * (target - centre).square()).flatten(many).sum(dim=-1) / count
        scale = count * torch.where(varied > 0, varied, torch.ones_like(varied))

    whole = bool((weight == 1).all())  # then there is nothing to leave out, and a pass to save

    def errors(found: Tensor) -> Tensor:
        if whole:
            return (found - target).square().flatten(many).sum(dim=-1) / scale
        return (weight * (found - target).square()).flatten(many).sum(dim=-1) / scale

    return errors


def _spread(spread: float | tuple[float, ...], x: Tensor, axes: int) -> Tensor:
    found = torch.as_tensor(spread, dtype=x.dtype, device=x.device)
    if found.ndim == 0:
        return found
    if not axes or len(found) not in (1, x.shape[x.ndim - axes]):
        raise UsageError(
            f"attack.spread holds {len(found)} numbers; expected one, or one for each of the input's "
            f"channels, {x.shape[x.ndim - axes] if axes else 1}"
        )
    return found.view(-1, *(1 for _ in range(axes - 1)))
