"""Hijack a client's layers: gradients of another task make them write what a decoder can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from privbench.contract import (
    Actor,
    Attack,
    Layer,
    Message,
    ReconstructionGuess,
    Seat,
    Stand,
    Topology,
    View,
    child_rng,
)
from privbench.errors import NotApplicable
from privbench.toolkit.decoders import decoder, discriminator, drawn
from privbench.toolkit.prefix import untrained
from privbench.toolkit.priors import expected, is_image
from privbench.toolkit.traffic import selected

BETAS = (0.5, 0.999)  # of Adam: less momentum than its default, as adversarial training wants it


NO_INPUTS = (
    "feature-space hijacking learns a decoder on auxiliary inputs, and there are none; choose a split "
    "with auxiliary records (data.split=thirds)"
)


def hijacked(topology: Topology, seat: Seat) -> tuple[Layer, tuple[int, ...]]:
    """The layer of the clients whose values the seat is sent, the last of several, and which channels.

    Raises:
        NotApplicable: it is fed by other hosts alone.
    """
    stems = {layer.name for layer in topology.layers if layer.place == "stem"}
    hosted = [topology.layer(name) for party in seat.parties for name in topology.hosted(party)]
    fed = [name for layer in hosted for name in layer.inputs if name in stems]
    if not fed:
        able = [
            party
            for party in topology.hosts()
            if any(stems & set(topology.layer(n).inputs) for n in topology.hosted(party))
        ]
        raise NotApplicable(
            f"'{seat.name}' is fed by no layer of the owners, so that it cannot teach them; choose a "
            f"seat that is: {', '.join(f'threat.seat={party}' for party in able[:3])}"
        )
    layer = topology.layer(fed[-1])
    needs = [
        need.units
        for piece in topology.slices
        if piece.party in seat.parties
        for need in piece.needs
        if need.layer == layer.name
    ]
    if not needs or None in needs:
        return layer, tuple(range(layer.channels))
    return layer, tuple(sorted({unit for units in needs for unit in units or ()}))


def _restricted(message: Message, layer: Layer, units: tuple[int, ...]) -> Message:
    held = message.units or tuple(range(layer.channels))
    if held == units:
        return message
    columns = [held.index(unit) for unit in units]
    return replace(message, units=units, payload=selected(message.payload, columns))


class Hijacker(Actor):
    """Collects what clients send in a step, learns from it, and answers with gradients of its own.

    Args:
        settings: of the attack.
    """

    kinds: ClassVar[tuple[str, ...]] = ("activation", "gradient")

    def __init__(self, settings: Fsha) -> None:
        self._settings = settings
        self._step = -1
        self._seen: list[Message] = []

    def open(self, stand: Stand, rng: torch.Generator) -> None:
        """Fresh networks.

        Raises:
            NotApplicable: the seat is fed by no client, or there are no auxiliary inputs.
        """
        known = stand.public.auxiliary
        if known is None or not len(known):
            raise NotApplicable(NO_INPUTS)
        self._seat, self._public = stand.seat, known.x.float().to(stand.device)
        self._layer, self._units = hijacked(stand.topology, stand.seat)
        features = (len(self._units), *self._layer.shape[1:])
        settings, shape = self._settings, self._public.shape[1:]
        self._pilot = untrained(stand.topology, self._layer, child_rng(rng, "pilot")).to(
            stand.device
        )
        make = child_rng(rng, "decoder"), child_rng(rng, "critic")
        self._decoder = drawn(lambda: _reader(features, shape, settings.width), make[0])
        self._critic = drawn(lambda: discriminator(features, settings.width), make[1])
        self._decoder.to(stand.device)
        self._critic.to(stand.device)
        both = [*self._pilot.parameters(), *self._decoder.parameters()]
        self._reading = torch.optim.Adam(both, settings.rate, betas=BETAS)
        self._judging = torch.optim.Adam(self._critic.parameters(), settings.rate, betas=BETAS)

    def act(self, message: Message, rng: torch.Generator) -> Message:
        """Another gradient in place of its own of the hijacked layer."""
        if message.layer != self._layer.name:
            return message
        if message.kind == "activation":
            if message.step != self._step:
                self._step, self._seen = message.step, []
            if message.sender not in self._seat.parties:
                self._seen.append(message)
        elif message.sender in self._seat.parties and message.step == self._step and self._seen:
            return replace(message, payload=self._answer(message, rng))
        return message

    def notes(self) -> dict[str, Tensor]:
        """The decoder."""
        return dict(self._decoder.state_dict())

    def _answer(self, message: Message, rng: torch.Generator) -> Tensor:
        """Towards values that the critic takes for the pilot's; rows that were not seen stay still."""
        parts = [_restricted(each, self._layer, self._units) for each in self._seen]
        rows = torch.cat([each.rows for each in parts])
        z = torch.cat([each.payload for each in parts]).float().to(self._public.device)
        for _ in range(self._settings.rounds):
            self._learn(z, rng)
        z.requires_grad_()
        deceived = F.softplus(-self._critic(z)).sum() / len(message.rows)
        (slope,) = torch.autograd.grad(deceived, z)
        answer = torch.zeros_like(message.payload)
        held = message.units or tuple(range(self._layer.channels))
        columns = torch.tensor([held.index(unit) for unit in self._units], device=answer.device)
        there = rows.to(answer.device)
        answer[there[:, None], columns] = (self._settings.scale * slope).to(answer)
        return answer

    def _learn(self, z: Float[Tensor, "n units ..."], rng: torch.Generator) -> None:
        """One step of autoencoder and critic."""
        chosen = torch.randint(len(self._public), (len(z),), generator=rng)
        x = self._public[chosen.to(self._public.device)]
        mine = self._pilot(x).reshape(len(x), *self._layer.shape)
        mine = selected(mine, self._units)
        _step(self._reading, F.mse_loss(self._decoder(mine), x))
        mine = mine.detach().requires_grad_()
        real, fake = self._critic(mine), self._critic(z)
        (slope,) = torch.autograd.grad(real.sum(), mine, create_graph=True)
        steep = slope.square().flatten(1).sum(dim=1).mean()
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        _step(self._judging, loss + self._settings.penalty / 2 * steep)


@dataclass(frozen=True, kw_only=True)
class Fsha(Attack):
    """Feature-space hijacking: whoever is fed by the clients' layers trains them to feed a decoder.

    D. Pasquini, G. Ateniese, M. Bernaschi: Unleashing the Tiger: Inference Attacks on Split Learning,
    CCS 2021, https://arxiv.org/abs/2012.02670.

    While the model is trained it fits an autoencoder on auxiliary inputs, whose first half is called
    pilot, and a critic that tells the pilot's values from the clients'. In place of the gradient of the
    loss it sends back that of deceiving the critic, until the decoder reads what clients send.

    We differ: the pilot has the clients' own architecture, which is public; all networks are small;
    the critic has a logistic loss with a penalty on its slope at the pilot's values (L. Mescheder,
    A. Geiger, S. Nowozin: Which Training Methods for GANs do actually Converge?, 2018,
    https://arxiv.org/abs/1801.04406) in place of a Wasserstein loss.

    The server of split learning stands so, and a host that the stem feeds; there other hosts' honest
    gradients are added to its own (``scale`` outweighs them), so that a single host seldom wins. The last
    steps are decoded best: the decoder is the one of the end (``threat.steps=last:8``).

    It wants clients whose layers are convolutions. Behind a linear layer nothing ties which input is
    matched to which, and what comes out is worse than guessing (docs/threat-models.md has figures).

    Args:
        rate: of all three networks.
        penalty: weight of half the critic's squared slope.
        width: channels within decoder and critic.
        rounds: steps of its own networks for each batch that passes.
        scale: of the gradient that is sent back.

    Example::

        privbench regime=split threat=split_server_active attack=fsha
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("auxiliary",)
    reads: ClassVar[tuple[str, ...]] = ("activation",)
    actor: ClassVar[type[Actor] | None] = Hijacker
    source: ClassVar[str] = (
        "D. Pasquini, G. Ateniese, M. Bernaschi, Unleashing the Tiger: Inference Attacks on Split "
        "Learning, 2021, https://arxiv.org/abs/2012.02670"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"rounds": 3})

    rate: float = 1e-3  # the paper's 1e-5 and 1e-4 are for networks a hundred times as large
    penalty: float = 0.1
    width: int = 32  # channels
    rounds: int = 1
    scale: float = 1.0

    def acting(self) -> Actor:
        """Trains decoder and critic, and sends the gradients."""
        return Hijacker(self)

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An image for each victim: what the decoder reads; the mean input for one that was not seen.

        Raises:
            NotApplicable: no auxiliary inputs.
        """
        if view.public.auxiliary is None or not len(view.public.auxiliary):
            raise NotApplicable(NO_INPUTS)
        shape = view.public.auxiliary.x.shape[1:]
        layer, units = hijacked(view.topology, view.seat)
        read = drawn(lambda: _reader((len(units), *layer.shape[1:]), shape, self.width), rng)
        state = {name: view.notes[name] for name in read.state_dict()}
        read.load_state_dict(state)
        read.to(view.device).eval()
        x = expected(view.public, shape).repeat(len(view.victims), *[1] * len(shape))
        for message in view.select("activation"):
            if message.layer != layer.name or message.sender in view.seat.parties:
                continue
            of_step = view.victims[:, 0] == message.step
            asked = of_step & torch.isin(view.victims[:, 1], message.rows)
            if not bool(asked.any()):
                continue
            order = message.rows.argsort()
            at = order[torch.searchsorted(message.rows[order], view.victims[asked, 1])]
            values = _restricted(message, layer, units).payload[at].float().to(view.device)
            with torch.no_grad():
                x[asked] = read(values).cpu()
        return ReconstructionGuess(view.victims, x)


def _reader(seen: Sequence[int], shape: Sequence[int], width: int) -> nn.Module:
    """From a layer's values to inputs. Trained at every step, so that it must be quick: maps go through
    transposed convolutions, the last one to the image's own channels (a fourth of the time)."""
    if not (is_image(seen) and is_image(shape)) or any(
        there >= wanted for there, wanted in zip(seen[1:], shape[1:], strict=True)
    ):
        return decoder(seen, shape, width)
    size, channels, parts = list(seen[1:]), seen[0], list[nn.Module]()
    while any(2 * there < wanted for there, wanted in zip(size, shape[1:], strict=True)):
        parts += [nn.ConvTranspose2d(channels, width, 4, 2, 1), nn.ReLU()]
        size, channels = [2 * side for side in size], width
    parts.append(nn.ConvTranspose2d(channels, shape[0], 4, 2, 1))
    if [2 * side for side in size] != list(shape[1:]):
        parts.append(nn.AdaptiveAvgPool2d(tuple(shape[1:])))
    return nn.Sequential(*parts, nn.Sigmoid())


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
