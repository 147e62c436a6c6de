"""Weights that an active server or coordinator plants in a first linear layer, and gradients read from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from privbench.contract import (
    Actor,
    Message,
    Public,
    ReconstructionGuess,
    Seat,
    Stand,
    Topology,
    View,
)
from privbench.errors import NotApplicable
from privbench.toolkit.chain import Link, chain_of
from privbench.toolkit.priors import expected

GRADIENTS = ("update", "stem_gradient")
SLACK = 0.02  # by which a rebuilt input may leave [0, 1] and still be believed: rounding


@dataclass(frozen=True)
class Entry:
    """The first linear layers of a network, as far as a seat may send other weights in their place.

    Args:
        links: the first layer, which works on inputs as they are, and the layers behind it.
        open: how many of them, from the first, the seat may change.
        shape: of one input.
    """

    links: tuple[Link, ...]
    open: int
    shape: tuple[int, ...]

    @property
    def weight(self) -> str:
        """Name of the first layer's matrix."""
        return self.links[0].weight

    @property
    def bias(self) -> str:
        """Name of its bias."""
        return str(self.links[0].bias)


def entry(topology: Topology, seat: Seat, public: Public) -> Entry:
    """Where weights can be planted.

    Raises:
        NotApplicable: the network does not begin with a linear layer that has a bias and a ReLU, the
            seat sends nobody its weights, or it has no inputs to calibrate them on.
    """
    if public.auxiliary is None or not len(public.auxiliary):
        raise NotApplicable(
            "planted weights are calibrated on auxiliary inputs, and there are none; choose a split with "
            "auxiliary records (data.split=thirds)"
        )
    shape = tuple(public.auxiliary.x.shape[1:])
    links = chain_of(topology.net.module(), shape)
    if links is None or links[0].bias is None or not isinstance(links[0].activation, nn.ReLU):
        raise NotApplicable(
            "weights are planted in a linear layer with a bias that works on inputs as they are, and has "
            "a ReLU behind it; this network begins otherwise: type model=mlp"
        )
    sent = _sent(topology, seat)
    count = next((n for n, link in enumerate(links) if link.weight not in sent), len(links))
    if not count:
        raise NotApplicable(
            f"'{seat.name}' sends nobody the weights of '{links[0].weight}'; choose a threat that does: "
            "threat=coordinator_active under regime=slicenet, threat=server_active under regime=fedavg"
        )
    return Entry(links, count, shape)


def _sent(topology: Topology, seat: Seat) -> frozenset[str]:
    """Names of the tensors that a seat broadcasts."""
    if "server" in seat.parties:
        return frozenset(topology.net.module().state_dict())
    if "coordinator" not in seat.parties:
        return frozenset()
    owned = (layer for layer in topology.layers if layer.place in ("stem", "tail"))
    return frozenset(name for layer in owned for name in layer.parameters)


class Planter(Actor):
    """Sends planted weights in place of those in force, for the first steps.

    Args:
        rounds: how many.
    """

    kinds: ClassVar[tuple[str, ...]] = ("global_weights", "stem_weights", "tail_weights")

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._planted: Mapping[str, Tensor] = {}

    @abstractmethod
    def planted(self, stand: Stand, rng: torch.Generator) -> Mapping[str, Tensor]:
        """The tensors to send, by name."""

    def open(self, stand: Stand, rng: torch.Generator) -> None:
        """Work out what is sent."""
        self._seat, self._planted = stand.seat, self.planted(stand, rng)

    def act(self, message: Message, rng: torch.Generator) -> Message:
        """The planted tensor of that name, if there is one."""
        mine = message.sender in self._seat.parties and message.step < self._rounds
        if not mine or message.layer not in self._planted:
            return message
        return replace(message, payload=self._planted[message.layer].to(message.payload))

    def notes(self) -> dict[str, Tensor]:
        """What was sent."""
        return dict(self._planted)


@dataclass(frozen=True, eq=False)
class Told:
    """What one message, or a sum of them, tells of the first layer.

    Args:
        rows: behind it.
        weight, bias: gradient, up to a common factor.
    """

    step: int
    rows: Int64[Tensor, " n"]
    weight: Float[Tensor, "neurons features"]
    bias: Float[Tensor, " neurons"]


def told(view: View, place: Entry, rounds: int) -> list[Told]:
    """The gradients of the first layer that came back at the steps of planted weights."""
    found: dict[tuple[int, str], dict[str, Message]] = {}
    for message in view.select(*GRADIENTS):
        if message.sender not in view.seat.parties and message.step < rounds:
            found.setdefault((message.step, message.sender), {})[message.layer] = message
    return [
        Told(
            step,
            parts[place.weight].rows,
            parts[place.weight].payload.double(),
            parts[place.bias].payload.double(),
        )
        for (step, _), parts in sorted(found.items())
        if place.weight in parts and place.bias in parts
    ]


def plausible(x: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
    """By how much each leaves the range of inputs at most; 0 = nowhere."""
    return torch.maximum(-x, x - 1).amax(dim=1).clamp(min=0)


def gathered(
    view: View, place: Entry, found: Sequence[tuple[Told, Float[Tensor, "n features"]]]
) -> ReconstructionGuess:
    """One guess a row, in unknown order: what was found, the most trusted first, then the mean input.

    Args:
        found: for each message that victims are behind, inputs read from it, the most trusted first.
    """
    mean = expected(view.public, place.shape)
    rows, x, groups = [], [], []
    for number, (each, inputs) in enumerate(found):
        kept = inputs[: len(each.rows)].to(mean.dtype).reshape(-1, *place.shape)
        rest = mean.expand(len(each.rows) - len(kept), *place.shape)
        rows.append(torch.stack([torch.full_like(each.rows, each.step), each.rows], dim=1))
        x.append(torch.cat([kept, rest]))
        groups.append(torch.full_like(each.rows, number))
    if not rows:
        nobody = torch.empty(0, dtype=torch.int64)
        return ReconstructionGuess(nobody.reshape(0, 2), torch.empty(0, *place.shape), nobody)
    return ReconstructionGuess(torch.cat(rows), torch.cat(x), torch.cat(groups))


def asked(view: View, every: Sequence[Told]) -> list[Told]:
    """Those that a victim is behind."""
    wanted = {step: view.victims[view.victims[:, 0] == step, 1] for step in view.steps()}
    return [each for each in every if bool(torch.isin(wanted[each.step], each.rows).any())]
