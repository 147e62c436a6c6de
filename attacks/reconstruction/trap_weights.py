"""Plant neurons that fire for one input of a batch: their gradients are that input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Actor, Attack, ReconstructionGuess, Stand, View
from privbench.toolkit.planting import (
    GRADIENTS,
    SLACK,
    Planter,
    Told,
    asked,
    entry,
    gathered,
    plausible,
    told,
)

QUIET = 1e-6  # of the largest bias gradient: below it a neuron fired for nobody
SAME = 1e-3  # largest difference, in the input's range, between two readings of one input


class Trapper(Planter):
    """Plants traps in the first layer."""

    def planted(self, stand: Stand, rng: torch.Generator) -> Mapping[str, Tensor]:
        """Weight and bias of the first layer.

        Raises:
            NotApplicable: see ``entry``.
        """
        place = entry(stand.topology, stand.seat, stand.public)
        known = stand.public.auxiliary
        x = (known.x if known is not None else torch.empty(0)).flatten(1).float()
        neurons, features = stand.topology.net.module().state_dict()[place.weight].shape
        share = 1 / max(2.0, _rows_behind(stand))
        weight = torch.empty(neurons, features)
        for number in range(neurons):
            order, half = torch.randperm(features, generator=rng), features // 2
            size = torch.randn(features - half, generator=rng).abs()
            down, up = torch.zeros(features), torch.zeros(features)
            down[order[half:]], up[order[:half]] = size, size[:half]
            limit = (x @ down) / (x @ up).clamp(min=1e-9)  # the factor from which on x fires
            weight[number] = float(torch.quantile(limit, share)) * up - down
        return {
            place.weight: weight / weight.norm(dim=1, keepdim=True),
            place.bias: torch.zeros(neurons),
        }


def _rows_behind(stand: Stand) -> float:
    """How many inputs are behind one gradient, as far as the recipe tells."""
    recipe = stand.public.recipe
    if recipe is None:
        return float(len(stand.topology.owners))
    if recipe.federation is not None:
        return float(recipe.batch * recipe.federation.local_steps)
    return recipe.batch / max(1, len(stand.topology.owners))


@dataclass(frozen=True, kw_only=True)
class TrapWeights(Attack):
    """When the curious abandon honesty: a first layer whose neurons seldom fire; single ones are inputs.

    F. Boenisch, A. Dziedzic, R. Schuster, A. S. Shamsabadi, I. Shumailov, N. Papernot: When the Curious
    Abandon Honesty: Federated Learning Is Not Private, EuroS&P 2023, https://arxiv.org/abs/2112.02918.

    Half of a neuron's weights are negative, half positive and slightly smaller, so that it fires for few
    inputs. The gradient of its weights over that of its bias is the input for which it fired, or a
    mixture of several.

    We differ: the factor between both halves is not tried out but chosen for each neuron so that it
    fires for one auxiliary input in as many as are behind a gradient. Readings on which two neurons
    agree come first: two mixtures would differ.

    Rows of one gradient come back in unknown order.

    Args:
        rounds: steps, from the first, at which weights are planted; afterwards the model trains.

    Example::

        privbench regime=slicenet threat=coordinator_active attack=trap_weights
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("auxiliary",)
    reads: ClassVar[tuple[str, ...]] = GRADIENTS
    actor: ClassVar[type[Actor] | None] = Trapper
    source: ClassVar[str] = (
        "F. Boenisch, A. Dziedzic, R. Schuster, A. S. Shamsabadi, I. Shumailov, N. Papernot, When the "
        "Curious Abandon Honesty: Federated Learning Is Not Private, 2023, https://arxiv.org/abs/2112.02918"
    )

    rounds: int = 8  # what threat.steps=first:8 looks at

    def acting(self) -> Actor:
        """Plants the traps."""
        return Trapper(self.rounds)

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """What neurons fired for, for each gradient that a victim is behind.

        Raises:
            NotApplicable: see ``toolkit.planting.entry``.
        """
        place = entry(view.topology, view.seat, view.public)
        every = asked(view, told(view, place, self.rounds))
        return gathered(view, place, [(each, _fired(each)) for each in every])


def _fired(each: Told) -> Float[Tensor, "found features"]:
    """Different readings that could be inputs; those that several neurons agree on come first."""
    there = each.bias.abs() > QUIET * each.bias.abs().max().clamp(min=1e-30)
    x = each.weight[there] / each.bias[there, None]
    x = x[plausible(x) < SLACK]
    alike = torch.cdist(x, x, p=float("inf")) < SAME
    order = torch.argsort(alike.sum(dim=1), descending=True, stable=True)
    kept: list[int] = []
    for one in order.tolist():
        if not any(bool(alike[one, other]) for other in kept):
            kept.append(one)
        if len(kept) == len(each.rows):
            break
    return x[kept].clamp(0, 1)
