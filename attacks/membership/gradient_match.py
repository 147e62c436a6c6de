"""Membership by comparing gradients that flow back through a cut with those of known records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, Block, MembershipGuess, Samples, View, counted
from privbench.errors import NotApplicable
from privbench.toolkit.evidence import labelled
from privbench.toolkit.slopes import network_at, slopes_at, slopes_of_victims

TINY = 1e-15  # length below which nothing flows back


@dataclass(frozen=True, kw_only=True)
class GradientMatch(Attack):
    """Who knows the network recognises a labelled record by the gradient that comes back of it.

    O. Li, J. Sun, X. Yang, W. Gao, H. Zhang, J. Xie, V. Smith, C. Wang: Label Leakage and Protection in
    Two-party Split Learning, ICLR 2022, https://arxiv.org/abs/2102.08504, read labels off that gradient.

    We differ: it is asked whose it is. The gradient of each candidate's loss with respect to what travels is
    computed and compared; how near a row comes is held against how near it comes to other candidates, and
    the nearest row tells. Exact where the weights are those of the step, weaker the older they are: the
    public initial ones at the first steps, or the released ones (``stale_weights``).

    Example::

        privbench regime=slicenet threat=host threat.steps=first:8 attack=gradient_match
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "model_weights|released_weights|stale_weights|initial_weights",
    )
    reads: ClassVar[tuple[str, ...]] = ("gradient",)
    source: ClassVar[str] = (
        "O. Li, J. Sun, X. Yang, W. Gao, H. Zhang, J. Xie, V. Smith, C. Wang, Label Leakage and Protection "
        "in Two-party Split Learning, 2022, https://arxiv.org/abs/2102.08504"
    )

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by the row that comes nearest, over steps and layers.

        Raises:
            NotApplicable: no labelled candidates, no gradient of others, or no weights of the whole network.
        """
        candidates, blocks = labelled(view, "gradient_match"), _received(view)
        if not blocks:
            raise NotApplicable(
                f"'{view.seat.name}' saw no gradient of others flow back; choose threat=host"
            )
        score = torch.full((len(candidates),), -torch.inf, dtype=torch.float64)
        for step in counted(torch.cat([each.rows[:, 0] for each in blocks]).unique().tolist()):
            weights = network_at(view, step)
            if weights is None:
                raise NotApplicable(
                    f"'{view.seat.name}' knows the whole network at none of the steps that it saw; choose "
                    "threat.steps=first:8, whose first weights are public"
                )
            size = _rows_of(view, step)
            for block in blocks:
                rows = block.payload[block.rows[:, 0] == step].flatten(1).double() * size
                expected = _expected(view, weights, block, candidates)
                score = torch.maximum(score, _nearness(rows, expected))
        lowest = (
            score[score.isfinite()].min() if bool(score.isfinite().any()) else torch.tensor(0.0)
        )
        return MembershipGuess(score.where(score.isfinite(), lowest))


def _received(view: View) -> list[Block]:
    """What flowed back to the seat; what it sends on is a part of a sum alone."""
    messages = [m for m in view.messages if m.sender not in view.seat.parties]
    return slopes_of_victims(replace(view, messages=tuple(messages)))


def _rows_of(view: View, step: int) -> int:
    """Over how many rows the loss of a step was averaged: those whose gradients were seen, own ones too."""
    rows = [message.rows for message in view.select("gradient") if message.step == step]
    own = [] if view.own is None else [view.own.rows[view.own.rows[:, 0] == step, 1]]
    return len(torch.cat([*rows, *own]).unique())


def _expected(
    view: View, weights: Mapping[str, Tensor], block: Block, samples: Samples
) -> Float[Tensor, "n features"]:
    """What would flow back of each record, of the units that were seen."""
    module = view.topology.net.module()
    module.load_state_dict(dict(weights))
    module.to(view.device).eval()
    found = slopes_at(module, view.topology.layer(block.layer), samples.to(view.device)).cpu()
    return found[:, torch.tensor(block.units)].flatten(1).double()


def _nearness(
    rows: Float[Tensor, "rows features"], expected: Float[Tensor, "n features"]
) -> Float[Tensor, " n"]:
    """By how much the logarithm of the distance to some row is less than that of other candidates to it."""
    rows = rows[rows.norm(dim=1) > TINY]
    if not len(rows):
        return expected.new_full((len(expected),), -torch.inf)
    apart = torch.cdist(expected, rows).clamp(min=TINY).log()
    return (apart.median(dim=0).values - apart).amax(dim=1)
