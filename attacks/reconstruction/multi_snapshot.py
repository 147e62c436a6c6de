"""Invert what a sample gave in several epochs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Attack, ReconstructionGuess, View
from privbench.errors import UsageError
from privbench.toolkit.descent import Descent, Errors, apart, started
from privbench.toolkit.linking import linked
from privbench.toolkit.pairs import input_shape
from privbench.toolkit.prefix import Prefix, Prefixes
from privbench.toolkit.priors import expected
from privbench.toolkit.traffic import Seen, each_known, places, seen_of_victims

Rows = Int64[Tensor, "n 2"]


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """What was seen of some rows of one step.

    Args:
        rows: their places among all rows.
        target: units that the seat does not see are 0.
        weight: 1 where ``target`` was seen.
    """

    prefix: Prefix
    rows: Int64[Tensor, " n"]
    target: Float[Tensor, "n channels ..."]
    weight: Float[Tensor, "n channels ..."]


@dataclass(frozen=True, kw_only=True)
class MultiSnapshot(Attack):
    """One image for all activations that one sample gave, each under the weights of its own step.

    Z. He, T. Zhang, R. B. Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019,
    https://doi.org/10.1145/3359789.3359824, invert one activation of a network that stays as it is; in
    training a sample crosses once an epoch, and each time the network is another.

    We differ: nothing tells which rows of two epochs are one sample, so that they are linked by what
    each gives alone: first guesses are matched between epochs, and a pair counts where it is clearly
    nearer than other rows of its epoch, and than the mean input, are. Then one search serves each linked
    set, with the errors of all its snapshots. It needs several epochs: ``threat.steps=all``.

    Args:
        steps: of Adam, in the joint search.
        first: of Adam, for the first guesses.
        rate, smooth: see ``privbench.toolkit.descent.Descent``.
        ratio: most that a link's distance may be of the distance to the nearest other; 0 links nothing.
        rows: most that are looked at beside the victims, the earliest of each epoch first.

    Example::

        privbench regime=slicenet threat=host threat.steps=all attack=multi_snapshot victims=32
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("prefix_weights",)
    reads: ClassVar[tuple[str, ...]] = ("activation",)
    source: ClassVar[str] = (
        "Z. He, T. Zhang, R. B. Lee, Model Inversion Attacks Against Collaborative Inference, 2019, "
        "https://doi.org/10.1145/3359789.3359824"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 40, "first": 40})

    steps: int = 400
    first: int = 100
    rate: float = 0.1
    smooth: float = 0.03
    ratio: float = 0.8  # that of SIFT's matches (Lowe 2004)
    rows: int = 4096  # memory and time

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.ratio <= 1:
            raise UsageError(f"attack.ratio={self.ratio}; expected a number from 0 to 1")

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An image for each victim; the mean auxiliary image for one that was not seen.

        Raises:
            NotApplicable: the seat lacks weights on the way to what it sees.
        """
        shape = input_shape(view)
        blind = expected(view.public, shape)
        guess = blind.repeat(len(view.victims), *(1 for _ in shape))
        rows = self._rows(view)
        snapshots = _snapshots(replace(view, victims=rows))
        if not snapshots:
            return ReconstructionGuess(view.victims, guess)
        alone = torch.arange(len(rows))
        image = alone
        if self.ratio > 0 and len((rows[:, 0] // view.topology.steps_per_epoch).unique()) > 1:
            guesses = self._search(view, snapshots, alone, self.first)
            seen = torch.cat([each.rows for each in snapshots]).unique()
            image = alone.clone()
            epochs = rows[seen, 0] // view.topology.steps_per_epoch
            image[seen] = seen[linked(guesses[seen], epochs, blind, self.ratio)]
        asked = image[places(rows, view.victims)]
        wanted, number = asked.unique(return_inverse=True)
        found = self._search(
            view, _only(snapshots, image, wanted), _numbered(image, wanted), self.steps
        )
        known = torch.isin(places(rows, view.victims), torch.cat([each.rows for each in snapshots]))
        guess[known] = found[number[known]]
        return ReconstructionGuess(view.victims, guess)

    def _rows(self, view: View) -> Rows:
        """Victims, and other people's rows of other steps, sorted by step and index."""
        told = [
            torch.stack([torch.full_like(m.rows, m.step), m.rows], dim=1)
            for m in view.select(*self.reads)
            if m.sender not in view.seat.parties
        ]
        others = torch.cat([*told, view.victims[:0]]).unique(dim=0)
        if view.own is not None and len(others):
            own = view.own.rows.unique(dim=0)
            others = others[places(own, others) < 0]
        victims = view.victims.unique(dim=0)
        others = others[places(victims, others) < 0]
        return torch.cat([victims, _earliest(others, view, self.rows)]).unique(dim=0)

    def _search(
        self, view: View, snapshots: Sequence[_Snapshot], image: Int64[Tensor, " rows"], steps: int
    ) -> Float[Tensor, "images ..."]:
        """An image for each number in ``image``, from all snapshots of its rows."""
        start = started("mean", view.public, input_shape(view)).to(view.device)
        count = int(image.max()) + 1
        descent = Descent(steps=steps, rate=self.rate, smooth=self.smooth)
        errors = _together(snapshots, image, count, view.device)
        x = start.expand(count, *start.shape)
        return descent.run(errors, x, start.ndim).cpu()


def _earliest(rows: Rows, view: View, most: int) -> Rows:
    """As many rows as are looked at, an equal share of each epoch."""
    epochs = rows[:, 0] // view.topology.steps_per_epoch
    share = max(1, most // max(1, len(epochs.unique())))
    kept = [rows[epochs == epoch][:share] for epoch in epochs.unique().tolist()]
    return torch.cat([*kept, rows[:0]])


def _snapshots(view: View) -> list[_Snapshot]:
    """What was seen of the victims, by step and by which units were seen."""
    prefixes = Prefixes(view.topology, view.weights)

    def snapshots(seen: Seen) -> list[_Snapshot]:
        rows = view.victims[seen.victims]
        at, found = seen.find(rows), []
        for step in rows[:, 0].unique().tolist():
            here = (rows[:, 0] == step).nonzero().flatten()
            target = torch.zeros(len(here), *seen.layer.shape)
            weight = torch.zeros_like(target)
            place, units = torch.arange(len(here))[:, None], torch.tensor(seen.seen.units)
            target[place, units] = seen.seen.payload[at[here]].float()
            weight[place, units] = 1.0
            prefix = prefixes.at(seen.layer.name, step)
            found.append(_Snapshot(prefix, seen.victims[here], target, weight))
        return found

    known = each_known(seen_of_victims(view, ("activation",)), snapshots)
    return [each for _, found in known for each in found]


def _together(
    snapshots: Sequence[_Snapshot], image: Int64[Tensor, " rows"], count: int, device: str
) -> Errors:
    """The mean error of each image over its snapshots."""
    parts = [
        (
            each.prefix.on(device),
            image[each.rows].to(device),
            apart(each.target.to(device), each.weight.to(device), relative=True, many=1),
        )
        for each in snapshots
    ]
    seen = torch.zeros(count, device=device)
    for _, images, _ in parts:
        seen.index_add_(0, images, torch.ones_like(images, dtype=seen.dtype))

    def errors(x: Tensor) -> Tensor:
        total = torch.zeros(count, device=device)
        for prefix, images, far in parts:
            total = total.index_add(0, images, far(prefix(x[images])))
        return total / seen.clamp(min=1)

    return errors


def _only(
    snapshots: Sequence[_Snapshot], image: Int64[Tensor, " rows"], wanted: Int64[Tensor, " n"]
) -> list[_Snapshot]:
    """What was seen of rows whose image is asked for."""
    found = []
    for each in snapshots:
        kept = torch.isin(image[each.rows], wanted)
        if bool(kept.any()):
            found.append(
                replace(
                    each, rows=each.rows[kept], target=each.target[kept], weight=each.weight[kept]
                )
            )
    return found


def _numbered(image: Int64[Tensor, " rows"], wanted: Int64[Tensor, " n"]) -> Int64[Tensor, " rows"]:
    """Images that are asked for, numbered from 0 in the order of ``wanted``; others are clamped."""
    return torch.searchsorted(wanted, image).clamp(max=len(wanted) - 1)
