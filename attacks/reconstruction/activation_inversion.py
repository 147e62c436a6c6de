"""Invert activations through known layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Attack, Guess, ReconstructionGuess, View
from privbench.errors import NotApplicable
from privbench.toolkit.descent import Descent, apart, started
from privbench.toolkit.prefix import Prefix, Prefixes, stack, stacks
from privbench.toolkit.priors import expected
from privbench.toolkit.traffic import Seen, each_known, seen_of_victims

ROWS = 4  # victims of one seat and step that share a set in a stack: bits depend on it, so fixed
SETS = 512  # sets of weights at once: bounds memory
ALONE = 64  # victims at once of a network that is not stacked


@dataclass(frozen=True, eq=False)
class _Lot:
    """Some victims of one seat and step.

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
    stacked: bool  # may it be computed beside lots with other weights?


@dataclass(frozen=True, kw_only=True)
class ActivationInversion(Attack):
    """Regularised maximum likelihood: which smooth image gives these activations?

    Z. He, T. Zhang, R. B. Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019,
    https://doi.org/10.1145/3359789.3359824 (white box, rMLE).

    We differ by default, and reach in 400 steps what theirs does not in 5,000: total variation is
    absolute, the search starts at the mean auxiliary image and stays in [0, 1], errors are relative to
    how much what was seen varies, and rate and prior fade together; ``attack=rmle`` is theirs. Each
    victim is inverted through the weights of its own step, all victims of all seats at once. Inputs
    that are no images have no smoothness prior.

    Args:
        relative: are errors divided by the variance of what was seen of the image? Then ``smooth``
            means the same at every layer.
        start: ``mean`` of the auxiliary inputs, ``typical`` (their median) or ``grey``.
        steps, rate, smooth, power, schedule, amsgrad, eps, spread, boxed: see
            ``privbench.toolkit.descent.Descent``.

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
    rate: float = 0.1  # of the input's range
    smooth: float = 0.03  # of relative errors; chosen on MNIST behind two convolutions
    relative: bool = True
    power: int = 1
    start: str = "mean"
    schedule: str = "cosine"
    amsgrad: bool = False
    eps: float = 1e-12
    spread: float | tuple[float, ...] = 1.0
    boxed: bool = True

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
        starts = [started(self.start, view.public, _shape(view)) for view in views]
        lots: list[_Lot] = []
        prefixes: Prefixes | None = None
        for number, view in enumerate(views):
            prefixes = Prefixes(view.topology, view.weights, prefixes)
            lots += _lots(number, view, prefixes)
        guesses = [
            expected(view.public, start.shape).repeat(len(view.victims), *(1 for _ in start.shape))
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
        """Every image by itself."""
        function = stack([lot.prefix for lot in lots], device)
        target = torch.stack([lot.target for lot in lots]).to(device)
        weight = torch.stack([lot.weight for lot in lots]).to(device)
        far = apart(target, weight, self.relative)
        x = start[:, None].repeat(1, target.shape[1], *(1 for _ in start.shape[1:]))
        descent = Descent(
            steps=self.steps, rate=self.rate, smooth=self.smooth, power=self.power,
            schedule=self.schedule, amsgrad=self.amsgrad, eps=self.eps, spread=self.spread,
            boxed=self.boxed,
        )  # fmt: skip
        return descent.run(lambda guess: far(function(guess)), x, start.ndim - 1)


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
            stacked = stacks(prefix, _shape(view), view.device)
            here = (rows[:, 0] == step).nonzero().flatten()
            for part in here.split(ROWS if stacked else ALONE):
                target, weight = _target(seen, at[part], ROWS if stacked else len(part))
                found.append(_Lot(number, seen.victims[part], prefix, target, weight, stacked))
        return found

    known = each_known(seen_of_victims(view, ("activation",)), lots)
    return [lot for _, found in known for lot in found]


def _target(seen: Seen, at: Int64[Tensor, " n"], size: int) -> tuple[Tensor, Tensor]:
    """What was seen of some rows, in a block of this size, and where it was seen."""
    units = torch.tensor(seen.seen.units)
    target = torch.zeros(size, *seen.layer.shape)
    weight = torch.zeros_like(target)
    rows = torch.arange(len(at))[:, None]
    target[rows, units] = seen.seen.payload[at].float()
    weight[rows, units] = 1.0
    return target, weight


def _alike(lots: Sequence[_Lot]) -> list[list[_Lot]]:
    """Lots that end at the same layer, as many as are inverted at once."""
    names = sorted({lot.prefix.layer.name for lot in lots if lot.stacked})
    found = [[lot] for lot in lots if not lot.stacked]
    for name in names:
        same = [lot for lot in lots if lot.stacked and lot.prefix.layer.name == name]
        found += [same[start : start + SETS] for start in range(0, len(same), SETS)]
    return found
