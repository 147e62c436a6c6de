"""Sort a batch into the bins of a planted layer: an input alone in its bin is read off exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Actor, Attack, ReconstructionGuess, Stand, View, child_rng
from privbench.errors import NotApplicable
from privbench.toolkit.planting import (
    GRADIENTS,
    SLACK,
    Entry,
    Planter,
    Told,
    asked,
    entry,
    gathered,
    plausible,
    told,
)

EMPTY = (
    1e-4  # of the largest bias gradient: differences below it are rounding, and the bin is empty
)


class Imprinter(Planter):
    """Plants bins by brightness in the first layer, and equal columns in the second."""

    def planted(self, stand: Stand, rng: torch.Generator) -> Mapping[str, Tensor]:
        """Weights and biases of both layers.

        Raises:
            NotApplicable: see ``entry``; or the second layer is not the seat's to change.
        """
        place = _two_layers(stand)
        known = stand.public.auxiliary
        state = stand.topology.net.module().state_dict()
        bins, features = state[place.weight].shape
        level = (known.x if known is not None else torch.empty(0)).flatten(1).double().mean(dim=1)
        edges = torch.quantile(level, torch.arange(bins).double() / bins)
        spread = level.std().clamp(min=1e-6)
        edges[0] = level.min() - spread  # the first bin is for all that is darker
        second, after = state[place.links[1].weight], place.links[1].bias
        column = torch.randn(len(second), generator=child_rng(rng, "column")).abs() / bins
        found = {
            place.weight: torch.full((bins, features), float(1 / (features * spread))),
            place.bias: -edges / spread,
            place.links[1].weight: column[:, None].expand_as(second),
        }
        return found if after is None else {**found, after: torch.zeros(len(second))}


def _two_layers(stand: Stand) -> Entry:
    place = entry(stand.topology, stand.seat, stand.public)
    if place.open < 2 or len(place.links) < 2:
        raise NotApplicable(
            "bins can be told apart where the layer behind them treats all alike, and "
            f"'{stand.seat.name}' may change the first layer alone; type regime.stem=2 (where owners run "
            "two layers), or attack=trap_weights, which needs the first layer alone"
        )
    return place


@dataclass(frozen=True, kw_only=True)
class Imprint(Attack):
    """Robbing the fed: a planted layer of bins; differences of neighbouring gradients are inputs.

    L. Fowl, J. Geiping, W. Czaja, M. Goldblum, T. Goldstein: Robbing the Fed: Directly Obtaining Private
    Data in Federated Learning with Modified Models, ICLR 2022, https://arxiv.org/abs/2110.13057.

    All neurons of the first layer measure an input's mean, each with another threshold; all columns of
    the second layer are equal. So neighbouring neurons differ in their gradients by the inputs between
    their thresholds, and where that is a single one, weight over bias is this input.

    We differ: the network's own first two layers are changed in place of one that is put before it, and
    thresholds are quantiles of auxiliary inputs, not of a normal distribution.

    It works on sums too, whoever adds the gradients up. Several local steps blur it: weights move
    between them. Rows of one gradient come back in unknown order; a bin of several inputs gives their
    mixture.

    Args:
        rounds: steps, from the first, at which weights are planted; afterwards the model trains.

    Example::

        privbench regime=fedavg regime.local_steps=1 threat=server_active attack=imprint
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("auxiliary",)
    reads: ClassVar[tuple[str, ...]] = GRADIENTS
    actor: ClassVar[type[Actor] | None] = Imprinter
    source: ClassVar[str] = (
        "L. Fowl, J. Geiping, W. Czaja, M. Goldblum, T. Goldstein, Robbing the Fed: Directly Obtaining "
        "Private Data in Federated Learning with Modified Models, 2022, https://arxiv.org/abs/2110.13057"
    )

    rounds: int = 8  # what threat.steps=first:8 looks at

    def acting(self) -> Actor:
        """Plants the bins."""
        return Imprinter(self.rounds)

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """What each bin holds, for each gradient that a victim is behind.

        Raises:
            NotApplicable: see ``toolkit.planting.entry``.
        """
        place = entry(view.topology, view.seat, view.public)
        edges = -view.notes[place.bias].double() / float(view.notes[place.weight][0].double().sum())
        every = asked(view, told(view, place, self.rounds))
        return gathered(view, place, [(each, _bins(each, edges)) for each in every])


def _bins(each: Told, edges: Float[Tensor, " bins"]) -> Float[Tensor, "found features"]:
    """What lies between two thresholds; where its own measure says so too, it comes first."""
    weight = each.weight - torch.cat([each.weight[1:], torch.zeros_like(each.weight[:1])])
    bias = each.bias - torch.cat([each.bias[1:], torch.zeros_like(each.bias[:1])])
    there = bias.abs() > EMPTY * each.bias.abs().max().clamp(min=1e-30)
    x = weight[there] / bias[there, None]
    above = torch.cat([edges[1:], edges.new_full((1,), float("inf"))])[there]
    level, slack = x.mean(dim=1), 1e-3
    within = (level > edges[there] - slack) & (level < above + slack) & (plausible(x) < SLACK)
    return x[torch.argsort(within.int(), descending=True, stable=True)].clamp(0, 1)
