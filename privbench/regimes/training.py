"""Plain training of one model by a recipe: the loop that every regime and every shadow shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn

from privbench.contract import (
    LearningDefense,
    Net,
    Observed,
    Recipe,
    Samples,
    augmented,
    batches,
    child_rng,
    counted,
    finite,
    optimizer_for,
    steps_per_epoch,
)
from privbench.errors import TrainingError, UsageError
from privbench.regimes.curve import Curve
from privbench.slicenet.noise import Noise, seeded

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(n, classes)`` outputs and ``(n,)`` labels to the mean loss, a scalar."""

Backward = Callable[[nn.Module, Samples, Loss], Tensor]
"""Leaves the gradients of a batch's mean loss in the network's parameters, and returns the loss."""


def whole_backward(net: nn.Module, batch: Samples, loss: Loss) -> Tensor:
    """Forward and backward pass in one piece."""
    found = loss(net(batch.x), cast(Tensor, batch.y))
    found.backward()
    return found.detach()


class Learner:
    """One module, its optimiser and its endless order of batches.

    Arithmetic is done on the device and in the floating type of ``samples.x``. Under a learning
    defense the optimiser is the defense's; ``module`` stays the plain network that it trains.

    Args:
        recipe: with weights in ``recipe.net``: training starts from them.
        samples: labelled records.
        order: draws the batches.
        noise: all randomness of a learning defense, of augmentation, and of random layers such as dropout.
        backward: how a batch's gradients are computed.

    Raises:
        UsageError: labels are withheld, or the recipe asks for what this loop does not do.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: Samples,
        order: torch.Generator,
        noise: torch.Generator,
        backward: Backward = whole_backward,
    ) -> None:
        _check(recipe, samples)
        self.samples = samples
        self.module = recipe.net.module().to(samples.x).train()
        self._live = {name: t.detach() for name, t in self.module.state_dict().items()}
        self._loss: Loss = getattr(F, recipe.loss)
        self._backward = backward
        self._net = self.module
        steps = total_steps(recipe, len(samples))
        self._optimizer = optimizer_for(recipe, self.module.parameters(), steps)
        self._order: Iterator[Tensor] = batches(recipe, len(samples), order)
        self._clip = recipe.clip
        self.curve = Curve()
        self._steps = 0
        self._recipe, self._noise = recipe, noise
        self._masks = Noise(noise.initial_seed())
        self.observed: Callable[[], Observed] | None = None
        self._drops = recipe.learning is None  # the first step shows whether there is dropout,
        self._draws: bool | None = None  # and whether anything draws from the global generators
        if recipe.learning is not None:
            defense = cast(LearningDefense, recipe.learning.build())
            there = torch.Generator(samples.x.device).manual_seed(noise.initial_seed())
            wrapped = defense.wrap(self._net, self._optimizer, self._order, there)
            self._net, self._optimizer, self._order, self.observed = wrapped

    def draw(self) -> Int64[Tensor, " batch"]:
        """Positions of the next batch."""
        return next(self._order)

    def learn(self, positions: Int64[Tensor, " batch"]) -> None:
        """One optimiser step on the mean loss of these records, or of copies of them."""
        records = self.samples[positions.to(self.samples.x.device)]
        batch = augmented(self._recipe, records, positions, self._noise, self._steps)
        self._masks.step = self._steps
        lent = seeded(self._masks.seed + self._steps, batch.x.device)
        with nullcontext() if self._draws is False else lent:
            before = torch.get_rng_state() if self._draws is None else None
            self._optimizer.zero_grad()
            with self._masks.at() if self._drops else nullcontext() as masks:
                self.curve.add(self._backward(self._net, batch, self._loss))
            self._drops = masks is not None and masks.calls > 0
            if self._clip is not None:
                nn.utils.clip_grad_norm_(self.module.parameters(), self._clip)
            self._optimizer.step()
            if before is not None and len(batch.x):  # who draws for no record draws nothing
                drawn = not torch.equal(before, torch.get_rng_state())
                self._draws = drawn or batch.x.device.type != "cpu"
        self._steps += 1

    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers: detached, and live, so that the next step changes them."""
        return dict(self._live)

    def restart(self, state: dict[str, Tensor]) -> None:
        """Go on from these parameters, with an optimiser that remembers nothing."""
        for name, tensor in state.items():
            self._live[name].copy_(tensor)
        self._optimizer.state.clear()


@dataclass(frozen=True, eq=False)
class Step:
    """A step that is about to be taken: its number, and the positions of its batch."""

    number: int
    positions: Int64[Tensor, " batch"]


class Training:
    """Centralized training, step by step.

    Iterating yields each step *before* it is taken, while ``learner`` holds the weights in force
    during it; leaving the loop early leaves the weights as they are.

    Args:
        recipe: initial weights are ``recipe.net.weights``, or drawn from ``rng`` where it has none.
        samples: labelled records, on the device where training happens.
        rng: initial weights come from its child ``init``, batches from ``batches``, noise of a
            learning defense, of augmentation and of random layers from ``noise``.
        backward: how a batch's gradients are computed.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: Samples,
        rng: torch.Generator,
        backward: Backward = whole_backward,
    ) -> None:
        start = started(recipe, rng)
        self.steps = total_steps(recipe, len(samples))
        order, noise = child_rng(rng, "batches"), child_rng(rng, "noise")
        self.learner = Learner(start, samples, order, noise, backward)
        self._net = recipe.net

    def __iter__(self) -> Iterator[Step]:
        for number in counted(range(self.steps)):
            step = Step(number, self.learner.draw())
            yield step
            self.learner.learn(step.positions)

    def result(self) -> Net:
        """The network with the weights of now.

        Raises:
            TrainingError: a weight is NaN or infinite.
        """
        return finite(self._net.holding(self.learner.module))


def train(recipe: Recipe, samples: Samples, rng: torch.Generator) -> Net:
    """Train one model (a ``Trainer``): the slow obvious road, which regimes and shadows agree with.

    Args:
        recipe: how; ``recipe.learning`` goes through its defense.
        samples: ``x (n, *shape)``, ``y (n,)``; training happens on their device.
        rng: see ``Training``.

    Raises:
        TrainingError: training gave NaN.
    """
    training = Training(recipe, samples, rng)
    for _ in training:
        continue
    return training.result()


def started(recipe: Recipe, rng: torch.Generator) -> Recipe:
    """The recipe with initial weights: its own, or drawn from the child ``init`` of ``rng``."""
    if recipe.net.weights is not None:
        return recipe
    return replace(recipe, net=recipe.net.initialised(child_rng(rng, "init")))


def total_steps(recipe: Recipe, records: int) -> int:
    """Optimiser steps of a whole training on that many records."""
    planned = recipe.epochs * steps_per_epoch(recipe, records)
    return planned if recipe.steps is None else min(planned, recipe.steps)


def accuracy(module: nn.Module, samples: Samples) -> float:
    """Share of samples whose label is the module's first choice, in eval mode."""
    was_training = module.training
    module.eval()
    with torch.no_grad():
        hits = (module(samples.x).argmax(1) == samples.y).double().mean()
    module.train(was_training)
    return float(hits)


def training_flops(net: Net, samples: Samples) -> float:
    """FLOPs of one training visit of one record.

    Linear layers and convolutions are counted, a multiply-add as two: once forward, once for the
    gradient of the weights, and once for that of the layer's input, which the first layer needs
    not. (torch's own counter gives the same, and takes seconds to import.)
    """
    found: list[float] = []

    def count(module: nn.Module, fed: tuple[Tensor, ...], out: Tensor) -> None:
        weight = cast(Tensor, module.weight)
        transposed = getattr(module, "transposed", False)
        values = fed[0].numel() if transposed else out.numel()
        found.append(2.0 * weight[0].numel() * values)

    module = net.module()
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd):
            part.register_forward_hook(count)
    with torch.no_grad():
        module(samples.x[:1].to("cpu", torch.get_default_dtype()))
    return 3.0 * sum(found) - sum(found[:1])


def _check(recipe: Recipe, samples: Samples) -> None:
    if samples.y is None:
        raise UsageError("training needs labels, these records have none; give samples with y")
    if not hasattr(F, recipe.loss):
        raise UsageError(
            f"loss '{recipe.loss}' is unknown; expected a name of torch.nn.functional, "
            "for example cross_entropy"
        )
    if recipe.mechanism is not None and recipe.learning is None:
        raise TrainingError(
            "the recipe holds a noise mechanism but names no learning defense that applies it; "
            "set both, as regime.learning does"
        )
