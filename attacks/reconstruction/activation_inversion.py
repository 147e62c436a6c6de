"""Invert activations through known layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Attack, Guess, ReconstructionGuess, View, counted
from privbench.errors import NotApplicable
from privbench.toolkit.prefix import Prefix, Prefixes, stack
from privbench.toolkit.priors import expected, is_image, variation_slope
from privbench.toolkit.traffic import Seen, each_known, seen_of_victims

ROWS = 4  # victims of one seat and step that are inverted side by side: bits depend on it, so fixed
SETS = 512  # sets of weights at once: bounds memory


@dataclass(frozen=True, eq=False)
class _Lot:
    """Up to ``ROWS`` victims of one seat and step.

    Args:
        view: number of the view.
        victims: their places in its victims.
        target: what was seen; units that the seat does not see, and rows beyond the last, are 0.
        weight: 1 where ``target`` was seen.
    """

    view: int
    victims: Int64[Tensor, " n"]
    prefix: Prefix
    target: Float[Tensor, "rows channels ..."]
    weight: Float[Tensor, "rows channels ..."]


@dataclass(frozen=True, kw_only=True)
class ActivationInversion(Attack):
    """Regularised maximum likelihood: which smooth image gives these activations?

    Z. He, T. Zhang, R. B. Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019,
    https://doi.org/10.1145/3359789.3359824 (white box, rMLE).

    We differ: total variation is the sum of absolute differences (theirs has the exponent as a
    parameter), the start is the mean auxiliary image, and Adam's rate falls along a half cosine,
    which needs a tenth of the steps. Each victim is inverted through the weights of its own step,
    and all victims of all seats at once. Inputs that are no images have no smoothness prior.

    Args:
        steps: of Adam.
        rate: at the start, in units of the input's range.
        smooth: weight of total variation beside the squared error.

    Example::

        privbench regime=slicenet threat=host attack=activation_inversion victims=32
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("prefix_weights",)
    reads: ClassVar[tuple[str, ...]] = ("activation",)
    source: ClassVar[str] = (
        "Z. He, T. Zhang, R. B. Lee, Model Inversion Attacks Against Collaborative Inference, 2019, "
        "https://doi.org/10.1145/3359789.3359824"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 60})

    steps: int = 400
    rate: float = 0.1
    smooth: float = 1e-3

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An image for each victim; the mean auxiliary image for one that was not seen.

        Raises:
            NotApplicable: the seat lacks weights on the way to what it sees.
        """
        (guess,) = self._invert([view])
        return guess

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        """All seats in one batch; draws nothing, as ``run``."""
        return list(self._invert(views))

    def _invert(self, views: Sequence[View]) -> list[ReconstructionGuess]:
        starts = [expected(view.public, _shape(view)) for view in views]
        lots: list[_Lot] = []
        prefixes: Prefixes | None = None
        for number, view in enumerate(views):
            prefixes = Prefixes(view.topology, view.weights, prefixes)
            lots += _lots(number, view, prefixes)
        guesses = [
            start.repeat(len(view.victims), *(1 for _ in start.shape))
            for view, start in zip(views, starts, strict=True)
        ]
        for batch in _alike(lots):
            device = views[batch[0].view].device
            start = torch.stack([starts[lot.view] for lot in batch])
            found = self._descend(batch, start.to(device), device).cpu()
            for lot, x in zip(batch, found, strict=True):
                guesses[lot.view][lot.victims] = x[: len(lot.victims)]
        return [
            ReconstructionGuess(view.victims, guess)
            for view, guess in zip(views, guesses, strict=True)
        ]

    def _descend(
        self, lots: Sequence[_Lot], start: Float[Tensor, "sets ..."], device: str
    ) -> Float[Tensor, "sets rows ..."]:
        """Adam on every image by itself (no loss couples them), projected on [0, 1]."""
        function = stack([lot.prefix for lot in lots], device)
        target = torch.stack([lot.target for lot in lots]).to(device)
        weight = torch.stack([lot.weight for lot in lots]).to(device)
        x = start[:, None].repeat(1, ROWS, *(1 for _ in start.shape[1:]))
        images = is_image(start.shape[1:])
        mean, square = torch.zeros_like(x), torch.zeros_like(x)
        for step in counted(range(self.steps)):
            x.requires_grad_()
            error = (weight * (function(x) - target)).square().sum()
            (slope,) = torch.autograd.grad(error, x)
            x = x.detach()
            if images:
                slope = slope + self.smooth * variation_slope(x)
            mean.mul_(0.9).add_(slope, alpha=0.1)
            square.mul_(0.999).addcmul_(slope, slope, value=0.001)
            rate = self.rate * (1 + math.cos(math.pi * step / self.steps)) / 2
            scale = (square / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-12)
            x = (x - rate / (1 - 0.9 ** (step + 1)) * mean / scale).clamp_(0, 1)
        return x


def _shape(view: View) -> tuple[int, ...]:
    """Shape of one input."""
    if view.public.auxiliary is not None:
        return tuple(view.public.auxiliary.x.shape[1:])
    if view.own is not None:
        return tuple(view.own.samples.x.shape[1:])
    raise NotApplicable(
        "the inversion starts at the mean auxiliary input, and this split has none; choose one that "
        "has (data.split=thirds)"
    )


def _lots(number: int, view: View, prefixes: Prefixes) -> list[_Lot]:
    """A seat's victims by what was seen of them and by step, a few at a time."""

    def lots(seen: Seen) -> list[_Lot]:
        rows = view.victims[seen.victims]
        at, found = seen.find(rows), []
        for step in rows[:, 0].unique().tolist():
            prefix = prefixes.at(seen.layer.name, step)
            for part in (rows[:, 0] == step).nonzero().flatten().split(ROWS):
                target, weight = _target(seen, at[part])
                found.append(_Lot(number, seen.victims[part], prefix, target, weight))
        return found

    known = each_known(seen_of_victims(view, ("activation",)), lots)
    return [lot for _, found in known for lot in found]


def _target(seen: Seen, at: Int64[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """What was seen of some rows, in a block of fixed size, and where it was seen."""
    units = torch.tensor(seen.seen.units)
    target = torch.zeros(ROWS, *seen.layer.shape)
    weight = torch.zeros_like(target)
    rows = torch.arange(len(at))[:, None]
    target[rows, units] = seen.seen.payload[at].float()
    weight[rows, units] = 1.0
    return target, weight


def _alike(lots: Sequence[_Lot]) -> list[list[_Lot]]:
    """Lots that end at the same layer, as many as are inverted at once."""
    names = sorted({lot.prefix.layer.name for lot in lots})
    found = []
    for name in names:
        same = [lot for lot in lots if lot.prefix.layer.name == name]
        found += [same[start : start + SETS] for start in range(0, len(same), SETS)]
    return found
