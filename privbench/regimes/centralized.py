"""Centralized training: the records are collected, and one trainer learns from them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import (
    Message,
    Net,
    Recipe,
    Samples,
    Topology,
    load_name,
    spec_of,
    steps_per_epoch,
)
from privbench.data.population import Population
from privbench.errors import TrainingError, UsageError
from privbench.regimes.base import Regime, Trained, defenses_of, privacy_of
from privbench.regimes.training import Training, accuracy, total_steps, training_flops
from privbench.wire.wire import Wire


@dataclass(frozen=True, kw_only=True)
class Centralized(Regime):
    """The owners of the records send them, once, to a trainer who runs SGD on all of them.

    With ``learning`` set to DP-SGD this is the baseline with a formal guarantee: the trainer still
    sees every record, the guarantee covers the released model.

    Args:
        stop_at: stop at the first step whose accuracy on auxiliary records reaches this; None =
            train to the end.
        match: stop where the accuracy on auxiliary records reaches that of a model trained by this
            regime on the same records with the same seed: a comparison at equal utility.

    Raises:
        UsageError: both are given, or there are no auxiliary records to measure on.
        TrainingError: that accuracy is never reached.

    Example::

        Centralized(match=Centralized(learning=DpSgd(epsilon=3.0), batch=300, epochs=30))
    """

    name: ClassVar[str] = "centralized"
    carries_canaries: ClassVar[bool] = True

    stop_at: float | None = None  # share of auxiliary records
    match: Regime | None = None

    def train(
        self, net: Net, population: Population, wire: Wire, rng: torch.Generator, device: str
    ) -> Trained:
        """See ``Regime.train``. A record crosses the wire with the first batch that it is in."""
        samples = population.train.to(device)
        recipe = self.recipe(net, len(samples))
        goal = self._goal(net, population, rng, device)
        training = Training(recipe, samples, rng)
        topology = _topology(recipe, wire, len(samples), training.steps)
        wire.open(topology)
        crossed = torch.zeros(len(samples), dtype=torch.bool)
        visits = 0
        for step in training:
            if goal is not None and goal.reached(training):
                recipe = replace(recipe, steps=step.number)
                break
            population.note(step.number, step.positions)
            wire.begin(step.number, torch.zeros_like(step.positions))
            _send_new(wire, step.number, step.positions, population.train, crossed)
            if wire.watches(step.number):
                wire.hold(step.number, training.learner.state())
            visits += len(step.positions)
        else:
            if goal is not None and not goal.reached(training):
                raise goal.missed(training)
        observed = training.learner.observed
        return Trained(
            net=training.result(),
            recipe=_published(recipe),
            trainer=self.trainer,
            topology=replace(topology, steps=total_steps(recipe, len(samples))),
            bytes_per_sample=sum(wire.bytes.values()) / max(1, visits),
            flops_per_sample=training_flops(net, samples),
            privacy=privacy_of(recipe),
            losses=training.learner.curve.points(),
            passes=visits / len(samples),
            observed=observed() if observed is not None else None,
        )

    @classmethod
    def like(cls, regime: Regime) -> Centralized:
        """Centralized training with another regime's settings, as far as it has them."""
        return cls(**{each.name: getattr(regime, each.name) for each in fields(Regime)})

    def departs(self, altered: bool) -> bool:
        """See ``Regime.departs``. Never: it learns from the records, not from what crossed."""
        return False

    def _goal(
        self, net: Net, population: Population, rng: torch.Generator, device: str
    ) -> _Goal | None:
        """Where to stop before the end, if anywhere."""
        if self.stop_at is None and self.match is None:
            return None
        if self.stop_at is not None and self.match is not None:
            raise UsageError("regime.stop_at and regime.match are both set; leave one of them out")
        if population.auxiliary is None:
            raise UsageError(
                "regime.stop_at and regime.match measure accuracy on auxiliary records, and this "
                "split has none; use data.split=thirds"
            )
        auxiliary = population.auxiliary.to(device)
        if self.match is None:
            return _Goal(float(self.stop_at or 0.0), auxiliary)
        model = self._matched(self.match, net, population, rng, device)
        return _Goal(accuracy(model.module().to(auxiliary.x), auxiliary), auxiliary)

    def _matched(
        self, match: Regime, net: Net, population: Population, rng: torch.Generator, device: str
    ) -> Net:
        """The released model of the other regime, trained without a wire: nobody listens to it."""
        samples = population.train.to(device)
        model: Net = load_name(match.trainer)(match.recipe(net, len(samples)), samples, rng)
        return model


@dataclass(frozen=True, eq=False)
class _Goal:
    """An accuracy on auxiliary records at which training stops."""

    accuracy: float
    auxiliary: Samples

    def reached(self, training: Training) -> bool:
        return self.found(training) >= self.accuracy

    def found(self, training: Training) -> float:
        return accuracy(training.learner.module, self.auxiliary)

    def missed(self, training: Training) -> TrainingError:
        return TrainingError(
            f"training never reached an accuracy of {self.accuracy:.3f} on auxiliary records; "
            f"after {training.steps} steps it was {self.found(training):.3f}: train longer with "
            "regime.epochs=..., or ask for less with regime.stop_at=..."
        )


def _published(recipe: Recipe) -> Recipe:
    """The recipe by which others train such a model: without gradient canaries."""
    if recipe.learning is None:
        return recipe
    return replace(recipe, learning=spec_of(recipe.learning.build().quiet()))


def _topology(recipe: Recipe, wire: Wire, records: int, steps: int) -> Topology:
    return Topology(
        regime=Centralized.name,
        parties=("owners", "trainer"),
        owners=("owners",),
        net=replace(recipe.net, weights=None),
        steps=steps,
        steps_per_epoch=steps_per_epoch(recipe, records),
        defenses=defenses_of(wire),
    )


def _send_new(
    wire: Wire,
    step: int,
    positions: Int64[Tensor, " batch"],
    samples: Samples,
    crossed: Tensor,
) -> None:
    """Send those records of the batch that did not cross before; mark them as crossed."""
    rows = (~crossed[positions]).nonzero().flatten()
    if not len(rows):
        return
    crossed[positions] = True
    new = samples[positions[rows]]
    payloads = {"samples": new.x, "labels": new.y}
    for kind, payload in payloads.items():
        if payload is not None:
            wire.send(
                Message(step, "train", "owners", "trainer", kind, "input", None, payload, rows)
            )
