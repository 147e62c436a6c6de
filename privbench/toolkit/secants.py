"""L-BFGS for many small problems side by side, none of which notices the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privbench.contract import counted

DECREASE = 1e-4  # share of the decrease that the slope promises which a step must bring
SHORTER, TRIES = 0.3, 8  # a step that does not is made this much shorter, so often
TINY = 1e-30

Evaluate = Callable[[Tensor], "Valued"]


@dataclass(frozen=True, eq=False)
class Valued:
    """A function's values and slopes, one problem a row."""

    value: Float[Tensor, " jobs"]
    slope: Float[Tensor, "jobs p"]


def lowest(
    evaluate: Evaluate, x: Float[Tensor, "jobs p"], steps: int, memory: int = 20
) -> Float[Tensor, "jobs p"]:
    """Where each problem's value is low.

    D. C. Liu, J. Nocedal: On the Limited Memory BFGS Method for Large Scale Optimization, 1989,
    https://doi.org/10.1007/BF01589116, with steps that are shortened until they help.

    Args:
        evaluate: row by row.
        x: to start from.
        memory: pairs of steps and changes of slope that are kept.
    """
    now = evaluate(x)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in counted(range(steps)):
        way = -_curved(now.slope, pairs)
        promised = (way * now.slope).sum(dim=1)
        lost = ~(promised < 0)  # nor where it is no number
        way = torch.where(lost[:, None], -now.slope, way)
        promised = torch.where(lost, -now.slope.square().sum(dim=1), promised)
        length = torch.ones_like(promised)
        if not pairs:
            length = (1 / now.slope.abs().sum(dim=1).clamp(min=TINY)).clamp(max=1)
        moved, then = _searched(evaluate, x, now, way, promised, length)
        pairs = [*pairs[-(memory - 1) :], _pair(moved - x, then.slope - now.slope)]
        x, now = moved, then
    return x


def _searched(
    evaluate: Evaluate, x: Tensor, now: Valued, way: Tensor, promised: Tensor, length: Tensor
) -> tuple[Tensor, Valued]:
    """A step that helps, or none."""
    place, value, slope = x, now.value, now.slope
    left: Bool[Tensor, " jobs"] = torch.ones_like(length, dtype=torch.bool)
    for _ in range(TRIES):
        trial = torch.where(left[:, None], x + length[:, None] * way, place)
        found = evaluate(trial)
        good = left & (found.value <= now.value + DECREASE * length * promised)
        place = torch.where(good[:, None], trial, place)
        value = torch.where(good, found.value, value)
        slope = torch.where(good[:, None], found.slope, slope)
        left = left & ~good
        if not bool(left.any()):
            break
        length = torch.where(left, length * SHORTER, length)
    return place, Valued(value, slope)


def _pair(step: Tensor, change: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A step, the change of slope, and one over their product; 0 where that says nothing."""
    product = (step * change).sum(dim=1, keepdim=True)
    sound = product > 1e-10 * change.square().sum(dim=1, keepdim=True)
    return step, change, torch.where(sound, 1 / product.clamp(min=TINY), torch.zeros_like(product))


def _curved(slope: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The slope times the inverse curvature that the pairs tell of."""
    way, shares = slope, []
    for step, change, weight in reversed(pairs):
        share = weight * (step * way).sum(dim=1, keepdim=True)
        way = way - share * change
        shares.append(share)
    if pairs:
        step, change, weight = pairs[-1]
        size = change.square().sum(dim=1, keepdim=True).clamp(min=TINY)
        scale = (step * change).sum(dim=1, keepdim=True) / size
        way = torch.where(weight > 0, scale, torch.ones_like(scale)) * way
    for (step, change, weight), share in zip(pairs, reversed(shares), strict=True):
        way = way + (share - weight * (change * way).sum(dim=1, keepdim=True)) * step
    return way
