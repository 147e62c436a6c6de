"""A stand-in for the part of a network that a seat does not know, tied to the part that it knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, fx, nn

from privbench.contract import (
    Layer,
    ReconstructionGuess,
    Samples,
    Topology,
    View,
    Weights,
    counted,
    traced,
)
from privbench.errors import NotApplicable
from privbench.toolkit.prefix import truncated
from privbench.toolkit.priors import expected
from privbench.toolkit.traffic import Seen, each_known, places, seen_of_victims

State = Mapping[str, Tensor]


class Answer(NamedTuple):
    """What the whole network makes of some inputs."""

    activation: Float[Tensor, "n channels ..."]  # of the layer that the seat sees
    output: Float[Tensor, "n ..."]


class StandIn:
    """The network of a run: what a seat knows of it is held still, the rest is free to be trained.

    Architecture is common knowledge, weights are not. Tensors, and rows of tensors, that the seat
    holds are put in at the values nearest to a step; all others start at values drawn from ``rng``,
    or, where the seat was there when training began, at the public initial ones. Norm layers work
    with running statistics, dropout is off.

    Args:
        topology: of the run.
        weights: those of the seat (``view.weights``), of one or many steps.
        layer: whose activation the seat sees.
        step: at which the seat's weights are put in, until ``at`` says otherwise.
        rng: of the free values.
        device: where to compute.

    Example::

        stand_in = StandIn(view.topology, view.weights, seen.layer, step, rng, view.device)
        stand_in(auxiliary.x).output
    """

    def __init__(
        self,
        topology: Topology,
        weights: Sequence[Weights],
        layer: Layer,
        step: int,
        rng: torch.Generator,
        device: str = "cpu",
    ) -> None:
        self.layer, self._device, self._weights = layer, device, weights
        recorded = traced(topology.net.initialised(rng).module())
        self._before = truncated(recorded, layer.cut).to(device)
        self._whole = _beside(recorded, layer.cut).to(device)
        self._values = {name: tensor.to(device) for name, tensor in recorded.state_dict().items()}
        self._begin(step)
        self._on_the_way = tuple(self._before.state_dict())
        self._known: dict[int, dict[str, _Known]] = {}
        self.at(step)
        self.free = {
            name: nn.Parameter(self._values[name].detach().clone())
            for name, _ in self._whole.named_parameters()
            if name not in self._held or self._held[name].where is not None
        }

    def _begin(self, step: int) -> None:
        """Put in the public initial weights where training began before ``step``."""
        for held in self._weights:
            if held.layer == "" and held.step < step:
                for name, tensor in held.tensors.items():
                    self._values[name] = tensor.to(self._values[name])

    def at(self, step: int) -> None:
        """Put in what the seat knows of ``step``, as near as it knows it."""
        if step not in self._known:
            self._known[step] = _known(self._values, self._weights, step)
        self._held = self._known[step]

    @property
    def tied(self) -> bool:
        """Does the seat know a weight behind what it sees, so that its stand-in must fit on?"""
        parameters = {name for name, _ in self._whole.named_parameters()}
        return bool(parameters & set(self._held) - set(self._on_the_way))

    def settled(self) -> StandIn:
        """Itself, trained no further: gradients reach inputs alone."""
        for parameter in self.free.values():
            parameter.requires_grad_(False)
        return self

    def before(self) -> list[nn.Parameter]:
        """The free parameters on the way to what the seat sees."""
        return [self.free[name] for name in self._on_the_way if name in self.free]

    def state(self) -> dict[str, Tensor]:
        """All values in force; gradients reach the free ones."""
        return {name: self._value(name) for name in self._values}

    def activation(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n channels ..."]:
        """What leaves the layer that the seat sees."""
        state = {name: self._value(name) for name in self._on_the_way}
        value = cast(Tensor, torch.func.functional_call(self._before, state, (x,)))
        return value.reshape(len(x), *self.layer.shape)

    def __call__(self, x: Float[Tensor, "n ..."]) -> Answer:
        """That, and what the whole network answers."""
        activation, output = torch.func.functional_call(self._whole, self.state(), (x,))
        return Answer(activation.reshape(len(x), *self.layer.shape), output)

    def _value(self, name: str) -> Tensor:
        known, free = self._held.get(name), self.free.get(name)
        if known is None:
            return self._values[name] if free is None else free
        if known.where is None or free is None:
            return known.value
        return torch.where(known.where, known.value, free)


def stand_in_of(view: View, seen: Seen, step: int, rng: torch.Generator) -> StandIn:
    """A stand-in that the seat can train: something behind what it sees is known to it.

    Raises:
        NotApplicable: it knows no weight behind what it sees, so that any stand-in would do.
    """
    made = StandIn(view.topology, view.weights, seen.layer, step, rng, view.device)
    if not made.tied:
        raise NotApplicable(
            f"'{view.seat.name}' sees layer '{seen.layer.name}' and knows no weights behind it, so "
            "that nothing ties a stand-in to the true layers; choose a host that computes with what "
            "it receives, or threat=split_server"
        )
    return made


def unseen(view: View) -> Float[Tensor, "victims ..."]:
    """What is guessed of each victim before anything was seen: the mean auxiliary input, or grey.

    Raises:
        NotApplicable: nothing tells the shape of an input.
    """
    known = view.public.auxiliary or (view.own.samples if view.own is not None else None)
    if known is None:
        raise NotApplicable(
            f"nothing tells '{view.seat.name}' the shape of an input; choose a split that has auxiliary "
            "records (data.split=thirds), or a seat that has samples of its own"
        )
    shape = tuple(known.x.shape[1:])
    return expected(view.public, shape).expand(len(view.victims), *shape).clone()


def guessed(
    view: View, blank: Float[Tensor, "victims ..."], work: Callable[[Seen, Tensor], Tensor]
) -> ReconstructionGuess:
    """The blank guess, and in it what ``work`` finds of each part that was seen.

    Args:
        work: a part and what was seen of its victims, ``(n, units, ...)`` on the view's device, to
            their inputs.

    Raises:
        NotApplicable: the seat knows enough for none of the parts.
    """

    def done(seen: Seen) -> Tensor:
        at = seen.find(view.victims[seen.victims])
        return work(seen, seen.seen.payload[at].float().to(view.device))

    for seen, found in each_known(seen_of_victims(view, ("activation",)), done):
        blank[seen.victims] = found.cpu()
    return ReconstructionGuess(view.victims, blank)


def labelled(view: View) -> Samples:
    """The auxiliary records on the view's device.

    Raises:
        NotApplicable: there are none, or they have no labels.
    """
    auxiliary = view.public.auxiliary
    if auxiliary is None or not len(auxiliary) or auxiliary.y is None:
        raise NotApplicable(
            "a stand-in is trained on labelled auxiliary records, and this split has none; choose one "
            "that has (data.split=thirds)"
        )
    return Samples(auxiliary.x.float(), auxiliary.y).to(view.device)


def some_of(auxiliary: Samples, each: int | None, rng: torch.Generator) -> Samples:
    """That many records of each class, drawn at random; all where there are fewer, or for None."""
    if each is None or auxiliary.y is None:
        return auxiliary
    order = torch.randperm(len(auxiliary), generator=rng).to(auxiliary.y.device)
    chosen = [order[auxiliary.y[order] == label][:each] for label in auxiliary.y.unique()]
    return auxiliary[torch.cat(chosen)]


def snapshots(view: View, seen: Seen) -> tuple[int, ...]:
    """Steps of which the seat both saw the layer and holds weights, oldest first.

    Where there are none: the last step that it saw.
    """
    steps = torch.unique(seen.seen.rows[:, 0]).tolist()
    held = {weights.step for weights in view.weights}
    return tuple(step for step in steps if step in held) or tuple(steps[-1:])


def size_of(seen: Seen) -> float:
    """Root mean square of what was seen: divided by it, decoders get values of size 1."""
    return float(seen.seen.payload.float().square().mean().sqrt().clamp(min=1e-6))


def labels_of(view: View, rows: Int64[Tensor, "n 2"]) -> Int64[Tensor, " n"]:
    """The label of each row that the seat was sent; -1 where it was not."""
    messages = view.select("labels")
    found = torch.full((len(rows),), -1, dtype=torch.int64)
    if not messages:
        return found
    named = torch.cat([torch.stack([torch.full_like(m.rows, m.step), m.rows], 1) for m in messages])
    payload = torch.cat([message.payload.flatten() for message in messages]).to(torch.int64)
    for column in (1, 0):  # by step, and within a step by row
        order = named[:, column].argsort(stable=True)
        named, payload = named[order], payload[order]
    at = places(named, rows)
    found[at >= 0] = payload[at[at >= 0]]
    return found


def like_batches(
    labels: Int64[Tensor, " n"], wanted: Int64[Tensor, " batch"], rng: torch.Generator
) -> Int64[Tensor, " batch"]:
    """Positions of records that have the wanted labels, one for one; any record for what none has."""
    place = torch.randint(len(labels), (len(wanted),), generator=rng)
    for label in torch.unique(wanted).tolist():
        have = (labels == label).nonzero().flatten().cpu()
        here = wanted == label
        if len(have):
            drawn = torch.randint(len(have), (int(here.sum()),), generator=rng)
            place[here] = have[drawn]
    return place


def loss_of(view: View) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that the network was trained on."""
    recipe = view.public.recipe
    return cast(
        Callable[[Tensor, Tensor], Tensor],
        getattr(F, recipe.loss if recipe is not None else "cross_entropy"),
    )


def rounds(steps: int, snapshots: Sequence[int]) -> Iterator[int]:
    """That many steps of an attack, spread over the snapshots in order of training."""
    for number in counted(range(steps)):
        yield snapshots[number * len(snapshots) // steps]


class _Known(NamedTuple):
    """What a seat knows of one tensor: its value, and where; None = in all places."""

    value: Tensor
    where: Tensor | None


def _known(values: State, weights: Sequence[Weights], step: int) -> dict[str, _Known]:
    """What is known of each tensor, nearest to a step: the latest before it, else the first after.

    The public initial weights count at their own step alone.
    """
    held = [each for each in weights if each.layer != "" or each.step == step]
    later = sorted((each for each in held if each.step > step), key=lambda each: -each.step)
    sooner = sorted((each for each in held if each.step <= step), key=lambda each: each.step)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for each in (*later, *sooner):
        for name, tensor in each.tensors.items():
            if name not in values:
                continue
            if name not in found:
                like = values[name]
                found[name] = like.clone(), torch.zeros_like(like, dtype=torch.bool)
            _put(*found[name], tensor, each)
    return {
        name: _Known(value, None if bool(where.all()) else where)
        for name, (value, where) in found.items()
    }


def _put(value: Tensor, where: Tensor, part: Tensor, held: Weights) -> None:
    """Write a part of a tensor in its place, and note where that is."""
    part = part.to(value)
    if held.units is None or value.ndim == 0 or len(held.units) != len(part):
        value.copy_(part.reshape(value.shape))
        where.fill_(True)
        return
    rows = torch.tensor(held.units, device=value.device)
    if held.columns is None or value.ndim < 2:
        value[rows], where[rows] = part, True
        return
    columns = torch.tensor(held.columns, device=value.device)
    value[rows[:, None], columns], where[rows[:, None], columns] = part, True


def _beside(recorded: fx.GraphModule, cut: str) -> fx.GraphModule:
    """A traced network that gives the node ``cut`` beside its own output."""
    graph, copies = fx.Graph(), dict[str, fx.Node]()
    for node in recorded.graph.nodes:
        if node.op == "output":
            graph.output((copies[cut], copies[node.args[0].name]))
        else:
            copies[node.name] = graph.node_copy(node, lambda before: copies[before.name])
    return fx.GraphModule(recorded, graph).eval()
