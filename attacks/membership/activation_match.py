"""Membership by comparing activations on the wire with those of known records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import (
    Attack,
    Block,
    Layer,
    MembershipGuess,
    Recipe,
    Samples,
    View,
    blocks,
    copies_of,
    counted,
)
from privbench.errors import NotApplicable
from privbench.toolkit.prefix import Prefixes
from privbench.toolkit.traffic import places


@dataclass(frozen=True, kw_only=True)
class ActivationMatch(Attack):
    """Who knows the layers before what it sees recognises a record by its activation.

    The check that split learning sends what identifies a record: Pasquini, Ateniese, Bernaschi,
    "Unleashing the Tiger: Inference Attacks on Split Learning", ACM CCS 2021,
    https://arxiv.org/abs/2012.02670, discuss a server that owns the first layers.

    We differ: nothing is learned. The activation of each candidate is computed and compared, so it
    succeeds by construction wherever a member's row was captured under weights that the seat holds. Where
    the recipe augments records, every copy that it can make of a candidate is looked for.

    A row that is zero in every unit seen matches all records that leave these units silent, and is
    left out.
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "prefix_weights")
    reads: ClassVar[tuple[str, ...]] = ("activation",)
    source: ClassVar[str] = (
        "Pasquini, Ateniese, Bernaschi, Unleashing the Tiger: Inference Attacks on Split Learning, "
        "2021, https://arxiv.org/abs/2012.02670"
    )
    by_construction: ClassVar[bool] = True

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by its distance to the nearest row of any step, negated.

        The threshold, where the seat has auxiliary records, is at half the distance at which the
        nearest of them lies.

        Raises:
            NotApplicable: no candidates, no activation seen, or a layer before it unknown.
        """
        candidates, auxiliary = view.public.candidates, view.public.auxiliary
        if candidates is None:
            raise NotApplicable("activation_match needs candidates; this seat is granted none")
        seen = _shallowest(view)
        scores = -_nearest(view, seen, candidates)
        if auxiliary is None or not len(auxiliary):
            return MembershipGuess(scores)
        strangers = _nearest(view, seen, auxiliary)
        return MembershipGuess(scores, threshold=-float(strangers.min()) / 4)  # squared distances


def _shallowest(view: View) -> list[tuple[Layer, Block]]:
    """Activations of the first layer, in order of the forward pass, at which each row was seen."""
    found: list[tuple[Layer, Block]] = []
    for layer in view.topology.layers:
        known = [block.rows for _, block in found]
        for block in blocks(view.messages, layer, "activation"):
            fresh = torch.ones(len(block.rows), dtype=torch.bool)
            for rows in known:
                fresh &= places(rows, block.rows) < 0
            if bool(fresh.any()):
                rest = replace(block, rows=block.rows[fresh], payload=block.payload[fresh])
                found.append((layer, rest))
    if found:
        return found
    raise NotApplicable(
        "activation_match needs activations, this seat saw none; choose threat=host"
    )


def _nearest(
    view: View, seen: Sequence[tuple[Layer, Block]], samples: Samples
) -> Float[Tensor, " n"]:
    """Squared distance of each sample's activation to the nearest row, over the steps.

    Relative to the mean squared norm of the step's rows, so that steps can be compared.

    Raises:
        NotApplicable: the seat knows the way to none of the rows.
    """
    prefixes, refused = Prefixes(view.topology, view.weights), []
    x, recipe = samples.x.to(view.device), view.public.recipe
    best = torch.full((len(samples),), torch.inf, dtype=torch.float64)
    for layer, block in seen:
        try:
            distance = _nearest_in(block, layer, prefixes, x, recipe)
        except NotApplicable as reason:
            refused.append(reason)
            continue
        best = torch.minimum(best, distance)
    if len(refused) == len(seen):
        raise refused[0]
    return best.nan_to_num(posinf=torch.finfo(torch.float32).max)


def _nearest_in(
    block: Block, layer: Layer, prefixes: Prefixes, x: Tensor, recipe: Recipe | None
) -> Float[Tensor, " n"]:
    """The same for rows of which the same units were seen; of each sample's copies the nearest counts."""
    units = torch.tensor(block.units)
    best = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for step in counted(block.rows[:, 0].unique().tolist()):
        rows = block.payload[block.rows[:, 0] == step].flatten(1).double()
        rows = rows[rows.any(dim=1)]
        if not len(rows):
            continue
        prefix, scale = prefixes.at(layer.name, step), rows.square().sum(1).mean()
        for copy in copies_of(recipe, x):
            with torch.no_grad():
                expected = prefix(copy).cpu()[:, units].flatten(1).double()
            distance = _squared_distances(expected, rows) / scale
            best = torch.minimum(best, distance.amin(dim=1))
    return best


def _squared_distances(
    left: Float[Tensor, "n features"], right: Float[Tensor, "m features"]
) -> Float[Tensor, "n m"]:
    """By one matrix product; in float64 what it cancels stays below single precision."""
    squares = left.square().sum(1)[:, None] + right.square().sum(1)
    return (squares - 2 * left @ right.T).clamp(min=0.0)
