"""Gradients that a seat knows: of which rows, under which weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import OWNERS, Message, Recipe, View
from privbench.errors import NotApplicable

State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Observed:
    """What learning from some rows did to the network, as one party told it or as it follows.

    Args:
        step: training step (or round).
        sender: whose rows they are; empty = everybody's but the seat's.
        rows: their indices in the step.
        gradient: of the mean loss over these rows, by parameter; after several local steps, its
            mean on the way. Where ``mean`` is False its direction alone is known.
        weights: state dict under which it was computed, as near as the seat knows it.
    """

    step: int
    sender: str
    rows: Int64[Tensor, " n"]
    gradient: State
    weights: State
    mean: bool


def observed(view: View, whole: bool = True) -> list[Observed]:
    """Every gradient that a view holds, from the first of four sources that it has.

    - Updates of other clients (server of federated averaging).
    - Two global models in a row and the seat's own update: the others' aggregate (client).
    - Stem and tail gradients of owners, or under secure aggregation their sum, from which that of the
      seat's own rows is taken off (coordinator).
    - Two broadcasts in a row of stem and tail: everybody's aggregate, from which the gradient of the
      seat's own rows is taken off where optimiser, samples and weights allow to compute it (owner).

    Args:
        whole: leave out gradients of which the seat does not know the whole network's weights; else
            their ``weights`` are empty.

    Raises:
        NotApplicable: there are gradients, but not the weights of the whole network to go with them.
    """
    known = _Networks(view, whole)
    theirs = [
        message
        for message in view.select("update", "stem_gradient", "tail_gradient")
        if message.sender not in view.seat.parties
    ]
    updates = [message for message in theirs if message.kind == "update"]
    if updates:
        found = [_update(known, *told) for told in _told(updates)]
    elif theirs:
        found = [_gradient(known, theirs, *told) for told in _told(theirs)]
    elif view.select("global_weights"):
        found = [_aggregate(known, step) for step in _followed(view, "global_weights")]
    else:
        found = [_difference(known, step) for step in _followed(view, "stem_weights")]
    kept = [each for each in found if each is not None]
    if found and not kept:
        raise NotApplicable(
            "a gradient can be inverted only through the whole network, and this seat lacks weights "
            "of some layers; choose threat.stale_weights=true, or look at the first steps "
            "(threat.steps=first:2)"
        )
    return kept


def by_step(view: View) -> list[tuple[tuple[str, ...], list[Observed]]]:
    """The same, those of one step and of the same parameters together, under the names of these.

    Raises:
        NotApplicable: there is none, or see ``observed``.
    """
    found: dict[tuple[int, tuple[str, ...]], list[Observed]] = {}
    trained = {name for name, _ in view.topology.net.module().named_parameters()}
    for known in observed(view):
        names = tuple(sorted(trained & set(known.gradient)))
        found.setdefault((known.step, names), []).append(known)
    if not found:
        raise NotApplicable(
            f"'{view.seat.name}' saw no update or gradient of others; look at more steps "
            "(threat.steps=all)"
        )
    return [(names, told) for (_, names), told in found.items()]


def flat_gradients(
    told: Sequence[Observed], names: Sequence[str]
) -> Float[Tensor, "senders numbers"]:
    """One row a sender, float64 on the CPU."""
    rows = [torch.cat([each.gradient[name].flatten() for name in names]) for each in told]
    return torch.stack(rows).double().cpu()


def step_length(recipe: Recipe | None) -> float | None:
    """Learning rate of plain SGD, by which differences of weights are gradients; None = unknown."""
    if recipe is None or recipe.optimizer.target != "torch.optim.SGD":
        return None
    if recipe.decay != "constant" or recipe.clip is not None:
        return None
    settings = dict(recipe.optimizer.kwargs)
    rate = settings.pop("lr", None)
    return float(rate) if rate and not any(settings.values()) else None


def _told(messages: Iterable[Message]) -> list[tuple[int, str, list[Message]]]:
    """Messages by step and sender."""
    found: dict[tuple[int, str], list[Message]] = {}
    for message in messages:
        found.setdefault((message.step, message.sender), []).append(message)
    return [(step, sender, told) for (step, sender), told in sorted(found.items())]


def _update(known: _Networks, step: int, sender: str, told: list[Message]) -> Observed | None:
    """A client's update, the other way round."""
    weights = known.at(step)
    if weights is None:
        return None
    scale = _local_scale(known.view)
    gradient = {message.layer: -message.payload / (scale or 1.0) for message in told}
    return Observed(step, sender, told[0].rows, gradient, weights, scale is not None)


def _local_scale(view: View) -> float | None:
    """Learning rate times local steps: an update over a mean gradient."""
    recipe = view.public.recipe
    rate = step_length(recipe)
    if recipe is None or recipe.federation is None or rate is None:
        return None
    return rate * recipe.federation.local_steps


def _gradient(
    known: _Networks, every: list[Message], step: int, sender: str, told: list[Message]
) -> Observed | None:
    """An owner's share of a step's gradient; all shares together are the batch's mean."""
    weights = known.at(step)
    if weights is None:
        return None
    batch = len(torch.unique(torch.cat([m.rows for m in every if m.step == step])))
    rows = told[0].rows
    if sender == OWNERS:
        return _others(known.view, step, told, weights)
    gradient = {message.layer: message.payload * (batch / len(rows)) for message in told}
    return Observed(step, sender, rows, gradient, weights, True)


def _others(view: View, step: int, told: list[Message], weights: State) -> Observed | None:
    """The sum over all owners of a step, without the seat's own part; None = nobody else's is in it."""
    every = told[0].rows
    rows = _without_own(view, step, every)
    if not len(rows):
        return None
    mine = _own_gradient(view, step, weights)
    gradient = {message.layer: message.payload * len(every) for message in told}
    left = {n: t - mine[n] if n in mine else t for n, t in gradient.items()}
    mean = {name: tensor / len(rows) for name, tensor in left.items()}
    exact = bool(mine) or len(rows) == len(every)  # else its own part is still in it
    return Observed(step, "", rows, mean, weights, exact)


def _followed(view: View, kind: str) -> list[int]:
    """Steps of which the broadcast and the next one were seen."""
    steps = {message.step for message in view.select(kind)}
    return sorted(step for step in steps if step + 1 in steps)


def _aggregate(known: _Networks, step: int) -> Observed | None:
    """The mean update of the other clients."""
    weights = known.at(step)
    if weights is None:
        return None
    view = known.view
    mine, clients = view.seat.parties, len(view.topology.owners)
    own = {m.layer: m.payload for m in view.select("update") if m.step == step and m.sender in mine}
    scale = _local_scale(view)
    gradient = {}
    for name, change in _change(view, step, ("global_weights",)).items():
        others = change * clients - own.get(name, torch.zeros_like(change))
        gradient[name] = -others / ((clients - 1) * (scale or 1.0))
    return Observed(step, "", _foreign(view, step), gradient, weights, scale is not None)


def _difference(known: _Networks, step: int) -> Observed | None:
    """The mean gradient of the rows of other owners."""
    weights = known.at(step)
    if weights is None:
        return None
    view = known.view
    change = _change(view, step, ("stem_weights", "tail_weights"))
    rate, rows = step_length(view.public.recipe), _foreign(view, step)
    blind = not weights and len(rows) < len(_rows(view, step))  # its own part cannot be taken off
    if rate is None or not len(rows) or blind:
        return Observed(step, "", rows, {n: -c for n, c in change.items()}, weights, False)
    gradient = {name: -tensor / rate for name, tensor in change.items()}
    mine = _own_gradient(view, step, weights)
    batch = _rows(view, step)
    for name, tensor in mine.items():
        if name in gradient:
            gradient[name] = (gradient[name] * len(batch) - tensor) / len(rows)
    return Observed(step, "", rows, gradient, weights, True)


def _change(view: View, step: int, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """What a step added to the weights that are broadcast."""
    now = {m.layer: m.payload for m in view.select(*kinds) if m.step == step}
    then = {m.layer: m.payload for m in view.select(*kinds) if m.step == step + 1}
    return {name: then[name] - tensor for name, tensor in now.items() if name in then}


def _own_gradient(view: View, step: int, weights: State) -> dict[str, Tensor]:
    """Sum over the seat's own rows of the gradients of their losses."""
    if view.own is None or not weights:
        return {}
    samples = view.own.samples[view.own.rows[:, 0] == step]
    if samples.y is None or not len(samples):
        return {}
    module = view.topology.net.module().to(samples.x)
    module.load_state_dict(dict(weights))
    loss = torch.nn.functional.cross_entropy(module(samples.x), samples.y, reduction="sum")
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def _rows(view: View, step: int) -> Int64[Tensor, " n"]:
    """All rows of a step, as its broadcasts name them."""
    broadcast = view.select("global_weights", "stem_weights")
    return next(message.rows for message in broadcast if message.step == step)


def _foreign(view: View, step: int) -> Int64[Tensor, " n"]:
    return _without_own(view, step, _rows(view, step))


def _without_own(view: View, step: int, rows: Int64[Tensor, " n"]) -> Int64[Tensor, " others"]:
    if view.own is None:
        return rows
    own = view.own.rows
    return rows[~torch.isin(rows, own[own[:, 0] == step, 1])]


class _Networks:
    """The whole network at each step, as near as the seat knows it."""

    def __init__(self, view: View, whole: bool = True) -> None:
        self.view, self._whole = view, whole
        self._like = view.topology.net.module().state_dict()
        self._found: dict[int, State | None] = {}

    def at(self, step: int) -> State | None:
        """Weights of a step; None = the seat lacks something.

        First what is broadcast at that step, then what the seat holds of it or of the latest
        earlier step, then, where granted, the released weights.
        """
        if step not in self._found:
            self._found[step] = self._assembled(step)
        found = self._found[step]
        return {} if found is None and not self._whole else found

    def _assembled(self, step: int) -> State | None:
        view = self.view
        state = dict(view.public.net.weights or {}) if view.public.net is not None else {}
        for held in sorted(view.weights, key=lambda each: each.step):
            if held.step <= step and held.units is None:
                state.update(held.tensors)
        for message in view.select("global_weights", "stem_weights", "tail_weights"):
            if message.step == step:
                state[message.layer] = message.payload
        for name, like in self._like.items():
            if name not in state and not like.is_floating_point():
                state[name] = like  # counters of batches: no gradient depends on them
            elif name not in state:
                return None
        return state
