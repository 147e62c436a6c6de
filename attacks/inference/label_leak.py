"""Read labels off gradients: signs, biases, norms, and directions that own records name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Attack, Block, LabelGuess, Layer, Samples, View
from privbench.errors import NotApplicable
from privbench.toolkit.labels import counts_without_model, label_counts, last_of
from privbench.toolkit.ridge import fit_ridge
from privbench.toolkit.slopes import (
    slopes_at,
    slopes_of_victims,
    sorted_rows,
    whole_network,
)
from privbench.toolkit.traffic import places
from privbench.toolkit.updates import Observed, observed


@dataclass(frozen=True, kw_only=True)
class LabelLeak(Attack):
    """What gradients tell of labels, by the surest way that the seat's view allows.

    O. Li, J. Sun, X. Yang, W. Gao, H. Zhang, J. Xie, V. Smith, C. Wang: Label Leakage and Protection in
    Two-party Split Learning, ICLR 2022, https://arxiv.org/abs/2102.08504 (norms and directions of the
    gradient at a cut, two classes); iDLG and LLG for updates (``toolkit.labels``). We differ: where
    the last layer's weights are known the gradient before it is solved for that of the logits, and
    directions of more than two classes are told apart by a classifier fitted on labelled gradients.

    Row by row, the first that applies:

    - gradients of the logits cross: the only negative entry is the label's;
    - gradients before the last layer cross and its weights are known (owners are sent them): the same
      after solving for the logits';
    - gradients of other layers cross: a ridge classifier on their directions, fitted on own records
      as they crossed and, where the whole network's weights are known, on auxiliary records;
    - two classes and nothing labelled: two opposite directions, named by the classes' shares.

    Else update by update (one group each, in unknown order): what the last layer's gradient tells.

    Example::

        privbench regime=slicenet threat=host attack=label_leak
    """

    goal: ClassVar[str] = "label"
    reads: ClassVar[tuple[str, ...]] = (
        "gradient",
        "update",
        "tail_gradient",
        "stem_gradient",
        "global_weights",
        "tail_weights",
        "stem_weights",
    )
    source: ClassVar[str] = (
        "O. Li, J. Sun, X. Yang, W. Gao, H. Zhang, J. Xie, V. Smith, C. Wang, Label Leakage and "
        "Protection in Two-party Split Learning, 2022, https://arxiv.org/abs/2102.08504"
    )

    fewest: int = 2  # labelled gradients below which a classifier says nothing

    def run(self, view: View, rng: torch.Generator) -> LabelGuess:
        """A label for each victim of which a gradient was seen, row by row or in groups.

        Raises:
            NotApplicable: gradients were seen, and nothing names their directions or weighs them.
        """
        nobody = torch.empty(0, dtype=torch.int64)
        if not len(view.victims):
            return LabelGuess(nobody.reshape(0, 2), nobody)
        blocks = slopes_of_victims(view)
        if not blocks:
            return _by_update(view)
        return _by_row(view, blocks, self.fewest)


@dataclass(frozen=True, eq=False)
class _Known:
    """Rows whose labels are known: the seat's own, and those read off exactly."""

    rows: Int64[Tensor, "n 2"]
    labels: Int64[Tensor, " n"]

    @classmethod
    def of(cls, view: View) -> _Known:
        """Own records."""
        if view.own is None or view.own.samples.y is None:
            return cls(view.victims[:0], torch.empty(0, dtype=torch.int64))
        return cls(view.own.rows, view.own.samples.y)

    def and_of(self, block: Block, labels: Int64[Tensor, " rows"]) -> _Known:
        """With a block's rows, whose labels were read off."""
        new = places(sorted_rows(self.rows), block.rows) < 0
        return _Known(
            torch.cat([self.rows, block.rows[new]]), torch.cat([self.labels, labels[new]])
        )


def _by_row(view: View, blocks: Sequence[Block], fewest: int) -> LabelGuess:
    """Labels from gradients of single rows, layer after layer."""
    found = torch.full((len(view.victims),), -1)
    known, reason = _Known.of(view), ""
    for block in blocks:
        at = places(block.rows, view.victims)
        asked = (at >= 0) & (found < 0)
        exact = _exact(view, block)
        if exact is not None:
            if bool((exact >= 0).all()):  # else only some classes would be known
                known = known.and_of(block, exact)
            found[asked] = exact[at[asked]]
        elif bool(asked.any()):
            try:
                found[asked] = _by_direction(view, block, at[asked], known, fewest)
            except NotApplicable as error:
                reason = reason or str(error)
    made = found >= 0
    if reason and not bool(made.any()):
        raise NotApplicable(reason)
    return LabelGuess(view.victims[made], found[made])


def _exact(view: View, block: Block) -> Int64[Tensor, " rows"] | None:
    """Labels of a layer's rows where they can be computed, -1 = its units do not tell; None = nowhere."""
    layer = view.topology.layer(block.layer)
    last = view.topology.layers[-1]
    slopes = block.payload.flatten(1).double()
    if layer.name in ((last.name,) if last.parameters else (last.name, *last.inputs)):
        least, at = slopes.min(dim=1)
        return torch.where(least < 0, torch.tensor(block.units)[at], -1)
    solved = _before_last(view, block, layer, slopes)
    return None if solved is None else solved.argmin(dim=1)


def _by_direction(
    view: View, block: Block, at: Int64[Tensor, " n"], known: _Known, fewest: int
) -> Int64[Tensor, " n"]:
    """A classifier of unit vectors, from labelled gradients of this layer."""
    slopes = block.payload.flatten(1).double()
    own = places(block.rows, known.rows)
    parts = [(slopes[own[own >= 0]], known.labels[own >= 0])]
    if (computed := _computed(view, block, int(block.rows[at, 0].max()))) is not None:
        parts.append(computed)
    labels = torch.cat([label for _, label in parts])
    if len(labels.unique()) >= 2 and len(labels) >= fewest:
        features = _unit(torch.cat([slope for slope, _ in parts]))
        targets = torch.nn.functional.one_hot(labels).double()
        return fit_ridge(features, targets)(_unit(slopes[at])).argmax(dim=1)
    shares = _shares(view)
    if len(shares) != 2:
        raise NotApplicable(
            f"'{view.seat.name}' sees gradients of '{block.layer}' and nothing that names their "
            "directions: no labelled record of its own crossed, and it lacks the network's weights; "
            "a host at the first steps knows them (threat=host threat.steps=first:8)"
        )
    return _two_sides(_unit(slopes[at]), shares)


def _before_last(
    view: View, block: Block, layer: Layer, slopes: Float[Tensor, "n features"]
) -> Float[Tensor, "n classes"] | None:
    """The logits' gradients behind those of the last hidden layer, up to a factor; None = unknown.

    Each is ``weight.T @ r`` with ``r`` adding up to zero: solved by least squares, the shortest ``r``
    where fewer units were seen than there are classes.
    """
    last = view.topology.layers[-1]
    if last.inputs != (layer.name,) or not last.parameters:
        return None
    held = {
        each.step: tensor
        for each in view.weights
        for name, tensor in each.tensors.items()
        if each.layer in (last.name, "") and each.units is None
        if name in last.parameters and tensor.ndim == 2
    }
    size = slopes.shape[1] // len(block.units)
    if not held:
        return None
    found = torch.empty(len(slopes), last.channels, dtype=torch.float64)
    for step in block.rows[:, 0].unique().tolist():
        weight = held[min(held, key=lambda known: (abs(known - step), known))].double()
        if weight.shape[1] != layer.channels * size:
            return None
        columns = weight.reshape(len(weight), layer.channels, size)[:, list(block.units)].flatten(1)
        here = block.rows[:, 0] == step
        found[here] = _solved(columns, slopes[here])
    return found


def _solved(columns: Float[Tensor, "classes k"], slopes: Float[Tensor, "n k"]) -> Tensor:
    gram = columns @ columns.T
    scale = gram.diagonal().mean().clamp(min=1e-30)
    classes = len(gram)
    system = gram + scale * torch.ones(classes, classes, dtype=gram.dtype)
    system += 1e-9 * scale * torch.eye(classes, dtype=gram.dtype)
    return torch.cholesky_solve(columns @ slopes.T, torch.linalg.cholesky(system)).T


def _computed(
    view: View, block: Block, step: int
) -> tuple[Float[Tensor, "n features"], Int64[Tensor, " n"]] | None:
    """Gradients of auxiliary records, where the seat knows the whole network at (or near) a step."""
    weights, auxiliary = whole_network(view, step), view.public.auxiliary
    if weights is None or auxiliary is None or auxiliary.y is None or not len(auxiliary):
        return None
    module = view.topology.net.module()
    module.load_state_dict(dict(weights))
    slopes = slopes_at(module.eval(), view.topology.layer(block.layer), auxiliary)
    return slopes[:, list(block.units)].flatten(1).double(), auxiliary.y


def _two_sides(
    slopes: Float[Tensor, "n features"], shares: Float[Tensor, " classes"]
) -> Int64[Tensor, " n"]:
    """Two classes pull in opposite directions: the commoner one is the fuller side."""
    _, vectors = torch.linalg.eigh(slopes.T @ slopes)
    side = (slopes @ vectors[:, -1] > 0).long()
    fuller = int(side.double().mean() > 0.5)
    return torch.where(side == fuller, shares.argmax(), shares.argmin())


def _by_update(view: View) -> LabelGuess:
    """Labels of each update that a victim had a part in, one group an update."""
    rows, labels, groups = [], [], []
    module = view.topology.net.module()
    for number, known in enumerate(_told(view)):
        victims = view.victims[view.victims[:, 0] == known.step, 1]
        last = last_of(known.gradient, module)
        if last is None or not bool(torch.isin(known.rows, victims).any()):
            continue
        count, counts = len(known.rows), None
        if known.weights or count == 1:
            if known.weights:
                module.load_state_dict(dict(known.weights))
            counts = label_counts(known, module.eval(), view.public.auxiliary, count)
        if counts is None:
            shares = _shares(view)
            if len(shares) != last.classes:  # a class that no record has, or no records at all
                shares = torch.full((last.classes,), 1 / last.classes, dtype=torch.float64)
            counts = counts_without_model(last, count, shares)
        rows.append(torch.stack([torch.full_like(known.rows, known.step), known.rows], dim=1))
        labels.append(torch.arange(len(counts)).repeat_interleave(counts))
        groups.append(torch.full((count,), number))
    if not rows:
        nobody = torch.empty(0, dtype=torch.int64)
        return LabelGuess(nobody.reshape(0, 2), nobody)
    return LabelGuess(torch.cat(rows), torch.cat(labels), torch.cat(groups))


def _told(view: View) -> list[Observed]:
    """Gradients with the weights that go with them, or those of the last layer alone."""
    try:
        return observed(view)
    except NotApplicable:
        told: dict[tuple[int, str], dict[str, Tensor]] = {}
        rows: dict[tuple[int, str], Int64[Tensor, " _n"]] = {}
        sizes: dict[int, int] = {}
        for message in view.select("tail_gradient"):
            if message.sender in view.seat.parties:
                continue
            key = message.step, message.sender
            told.setdefault(key, {})[message.layer] = message.payload
            rows[key] = message.rows
        if not told:
            raise
        for (step, _), named in rows.items():
            sizes[step] = sizes.get(step, 0) + len(named)
        return [
            Observed(
                step,
                sender,
                rows[step, sender],
                {n: t * (sizes[step] / len(rows[step, sender])) for n, t in gradient.items()},
                MappingProxyType({}),
                True,
            )
            for (step, sender), gradient in sorted(told.items())
        ]


def _unit(slopes: Float[Tensor, "n features"]) -> Float[Tensor, "n features"]:
    return slopes / slopes.norm(dim=1, keepdim=True).clamp(min=1e-30)


def _shares(view: View) -> Float[Tensor, " classes"]:
    """How common each class is among the labelled records that the seat holds."""
    own = view.own.samples if view.own is not None else None
    held: list[Samples] = [each for each in (view.public.auxiliary, own) if each is not None]
    for each in held:
        if each.y is not None and len(each):
            return torch.bincount(each.y).double() / len(each)
    return torch.empty(0, dtype=torch.float64)
