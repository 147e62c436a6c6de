"""Simulate the client so well that a judge cannot tell, and decode it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import Attack, ReconstructionGuess, Samples, View, child_rng
from privbench.toolkit.decoders import decoder, discriminator, drawn
from privbench.toolkit.standin import (
    guessed,
    labelled,
    labels_of,
    like_batches,
    loss_of,
    rounds,
    size_of,
    snapshots,
    stand_in_of,
    unseen,
)
from privbench.toolkit.traffic import Seen, defended, selected


@dataclass(frozen=True, kw_only=True)
class Sdar(Attack):
    """A simulator of the client and a decoder, each held to private traffic by a judge; passive.

    X. Zhu, X. Luo, Y. Wu, Y. Jiang, X. Xiao, B. C. Ooi: Passive Inference Attacks on Split Learning
    via Adversarial Regularization, NDSS 2025, https://arxiv.org/abs/2310.10483.

    We differ: it learns from the recorded steps in order of training, not beside them; its networks
    have neither norm layers nor dropout; the simulator's judge learns as fast as the simulator.

    Simulator: the client's layers with free weights, trained on the task under the seat's weights of
    each step and against a judge of activations. Decoder: from the simulator's activations back to
    their inputs, and against a judge of inputs. Where the seat is sent labels, decoder and judges
    are told them, and batches have the labels of the rows that crossed.

    Args:
        training: steps of Adam on all four networks, spread over the steps seen.
        batch: rows of such a step, at most.
        learning, rate: of the simulator and of the decoder.
        tie: weight of the judge of activations beside the task (their lambda 1).
        realism: weight of the judge of inputs beside the squared error (their lambda 2); its own rate
            is ``rate`` times this, as theirs.
        width: of decoder and judges, in channels.

    Example::

        privbench regime=split threat=split_server threat.steps=all attack=sdar victims=32
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("own_weights", "auxiliary")
    reads: ClassVar[tuple[str, ...]] = ("activation", "labels")
    source: ClassVar[str] = (
        "X. Zhu, X. Luo, Y. Wu, Y. Jiang, X. Xiao, B. C. Ooi, Passive Inference Attacks on Split "
        "Learning via Adversarial Regularization, 2025, https://arxiv.org/abs/2310.10483"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"training": 200, "batch": 32, "rate": 1e-2, "width": 4}
    )

    training: int = 3000
    batch: int = 64
    learning: float = 1e-3
    rate: float = 5e-4
    tie: float = 0.02
    realism: float = 1e-5
    width: int = 32

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An input for each victim; the mean auxiliary input for one that was not seen.

        Raises:
            NotApplicable: no labelled auxiliary records, or no weights behind what is seen.
        """
        blank, auxiliary = unseen(view), labelled(view)

        def work(seen: Seen, payload: Tensor) -> Tensor:
            game = _Game(self, view, seen, auxiliary, rng)
            for step in rounds(self.training, snapshots(view, seen)):
                game.play(step)
            return game.decoded(seen.find(view.victims[seen.victims]))

        return guessed(view, blank, work)


Told = tuple[Tensor, ...]
"""Labels of a batch, where the seat is sent them: further arguments of conditional networks."""


class _Game:
    """Four networks and what they learn from.

    Args:
        attack: its settings.
        seen: what crossed.
        auxiliary: labelled records, on the view's device.
        rng: of all weights and draws.
    """

    def __init__(
        self, attack: Sdar, view: View, seen: Seen, auxiliary: Samples, rng: torch.Generator
    ) -> None:
        self._attack, self._view, self._seen, self._auxiliary = attack, view, seen, auxiliary
        self._loss, self._size = loss_of(view), size_of(seen)
        self._draws, self._noise = child_rng(rng, "draws"), child_rng(rng, "defense")
        labels = labels_of(view, seen.seen.rows)
        self._labels = labels if bool((labels >= 0).all()) else None
        known = torch.cat([cast(Tensor, auxiliary.y).cpu(), labels])
        classes = 0 if self._labels is None else int(known.max()) + 1
        shape, features, width = auxiliary.x.shape[1:], seen.seen.payload.shape[1:], attack.width

        def net(name: str, build: Callable[[], nn.Module]) -> nn.Module:
            return drawn(build, child_rng(rng, name)).to(view.device)

        last = snapshots(view, seen)[-1]
        self._client = stand_in_of(view, seen, last, child_rng(rng, "simulator"))
        self._decoder = net("decoder", lambda: decoder(features, shape, width, classes))
        self._judge = net("judge", lambda: discriminator(features, width, classes))
        self._critic = net("critic", lambda: discriminator(shape, width, classes))
        self._simulates = _adam(self._client.free.values(), attack.learning)
        self._judges = _adam(self._judge.parameters(), attack.learning)
        self._decodes = _adam(self._decoder.parameters(), attack.rate)
        self._criticises = _adam(self._critic.parameters(), attack.rate * attack.realism)

    def play(self, step: int) -> None:
        """One step of every network, on rows that crossed at ``step``."""
        rows = (self._seen.seen.rows[:, 0] == step).nonzero().flatten()
        at = rows[torch.randperm(len(rows), generator=self._draws)[: self._attack.batch]]
        private, told = self._private(at)
        if self._labels is None:
            chosen = torch.randint(len(self._auxiliary), (len(at),), generator=self._draws)
        else:
            labels = cast(Tensor, self._auxiliary.y)
            chosen = like_batches(labels, self._labels[at], self._draws)
        public = self._auxiliary[chosen.to(self._view.device)]
        self._client.at(step)
        simulated = self._simulate(step, public, private, told)
        self._decode(public, simulated, private, told)

    def decoded(self, at: Tensor) -> Float[Tensor, "n ..."]:
        """Inputs of some rows that crossed."""
        with torch.no_grad():
            private, told = self._private(at)
            return cast(Tensor, self._decoder(private, *told))

    def _private(self, at: Tensor) -> tuple[Float[Tensor, "n units ..."], Told]:
        """What crossed, at size 1, and its labels."""
        payload = self._seen.seen.payload[at].float().to(self._view.device) / self._size
        told = () if self._labels is None else (self._labels[at].to(self._view.device),)
        return payload, told

    def _simulate(self, step: int, public: Samples, private: Tensor, told: Told) -> Tensor:
        """Simulator and its judge learn; what the simulator sends."""
        whole, output = self._client(public.x)
        sent = defended(self._view.topology, self._seen.layer, whole, step, self._noise)
        simulated = selected(sent, self._seen.seen.units) / self._size
        mine = told and (cast(Tensor, public.y),)
        if self._simulates is not None:
            task = self._loss(output, cast(Tensor, public.y))
            fooled = _right(self._judge(simulated, *mine), real=True)
            _learn(self._simulates, task + self._attack.tie * fooled)
        apart = _right(self._judge(private, *told), real=True)
        apart = apart + _right(self._judge(simulated.detach(), *mine), real=False)
        _learn(self._judges, apart)
        return simulated.detach()

    def _decode(self, public: Samples, simulated: Tensor, private: Tensor, told: Told) -> None:
        """Decoder and its judge learn."""
        mine = told and (cast(Tensor, public.y),)
        error = (self._decoder(simulated, *mine) - public.x).square().mean()
        made = self._decoder(private, *told)
        fooled = _right(self._critic(made, *told), real=True)
        _learn(self._decodes, error + self._attack.realism * fooled)
        apart = _right(self._critic(public.x, *mine), real=True)
        _learn(self._criticises, apart + _right(self._critic(made.detach(), *told), real=False))


def _adam(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Adam | None:
    """None where there is nothing to learn."""
    found = list(parameters)
    return torch.optim.Adam(found, lr=rate) if found else None


def _learn(adam: torch.optim.Adam | None, loss: Tensor) -> None:
    """A step of those parameters alone, whatever else the loss depends on."""
    if adam is None:
        return
    parameters = [parameter for group in adam.param_groups for parameter in group["params"]]
    for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = slope
    adam.step()


def _right(logits: Float[Tensor, " n"], real: bool) -> Float[Tensor, ""]:
    """How far a judge is from calling all of these real, or made."""
    truth = torch.full_like(logits, float(real))
    return F.binary_cross_entropy_with_logits(logits, truth)
