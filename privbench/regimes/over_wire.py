"""Shadows of models whose protocol changed what they learned: the same training, and nobody listens."""

from __future__ import annotations

from dataclasses import replace

import torch

from privbench.contract import Net, Protocol, Recipe, Samples, child_rng, spec_of
from privbench.data.population import Population
from privbench.errors import UsageError
from privbench.regimes.base import Regime, Trained, defenses_of
from privbench.wire.wire import Wire

TRAINER = "privbench.regimes.over_wire.train"


def train(recipe: Recipe, samples: Samples, rng: torch.Generator) -> Net:
    """Train one model by a protocol (a ``Trainer``), over a wire with the protocol's defenses.

    Args:
        recipe: with ``protocol``.
        samples: ``x (n, *shape)``, ``y (n,)``; training happens on their device.
        rng: what the regime draws, and the defenses from its child ``wire``: a target with these
            records and this generator is the same to the last bit.

    Raises:
        UsageError: the recipe has no protocol, or the records are too few for it.
        TrainingError: training gave NaN.
    """
    if recipe.protocol is None:
        raise UsageError(f"{TRAINER} needs a recipe that says its protocol, and this one says none")
    regime: Regime = recipe.protocol.regime.build().rehearsed(recipe, len(samples))
    defenses = [spec.build() for spec in recipe.protocol.defenses]
    wire = Wire(defenses=defenses, rng=child_rng(rng, "wire"))
    people, device = Population.of(samples.to("cpu")), str(samples.x.device)
    return regime.train(recipe.net, people, wire, rng, device).net


def followed(trained: Trained, regime: Regime, wire: Wire) -> Trained:
    """What training left behind, with a recipe by which shadows learn as it did.

    Args:
        trained: of ``regime``.
        wire: over which it was trained.
    """
    if not regime.departs(wire.altered):
        return trained
    learning = trained.recipe.learning  # resolved: nobody need search for its noise again
    regime = replace(regime, learning=None if learning is None else learning.build())
    protocol = Protocol(spec_of(regime), defenses_of(wire))
    return replace(trained, recipe=replace(trained.recipe, protocol=protocol), trainer=TRAINER)
