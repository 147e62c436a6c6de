"""What a regime is: a way to train a model over a wire."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from privbench.contract import (
    LearningDefense,
    Net,
    Pairs,
    PrivacyCost,
    Recipe,
    Spec,
    Topology,
)
from privbench.data.population import Population
from privbench.wire.wire import Wire


@dataclass(frozen=True, eq=False)
class Trained:
    """What training leaves behind, beside what taps recorded.

    ``flops_per_sample`` and ``bytes_per_sample`` are for one visit of one record (all parties and
    links together). ``trainer`` is the import name by which a shadow of this model is trained.
    """

    net: Net
    recipe: Recipe
    trainer: str
    topology: Topology
    bytes_per_sample: float
    flops_per_sample: float
    privacy: PrivacyCost | None = None


@dataclass(frozen=True, kw_only=True)
class Regime(ABC):
    """A training protocol. Subclasses add their own settings.

    Args:
        optimizer: import name and arguments of a torch optimiser.
        epochs: passes over the private records.
        batch: records a step.
        learning: DP-SGD or the like; None = plain.
    """

    name: ClassVar[str]
    topology_of_members: ClassVar[bool] = True

    optimizer: Spec = field(default_factory=lambda: Spec("torch.optim.SGD", {"lr": 0.3}))
    epochs: int = 60
    batch: int = 32
    learning: LearningDefense | None = None

    @abstractmethod
    def train(
        self, net: Net, population: Population, wire: Wire, rng: torch.Generator, device: str
    ) -> Trained:
        """Train ``net`` on the population's private records over the wire.

        Randomness: initial weights from ``child_rng(rng, "init")``, batches from
        ``child_rng(rng, "batches")``, so that regimes with equal batches have equal ones.

        Raises:
            TrainingError: NaN, or a privacy budget out of reach.
            BudgetError: no slicing fits the devices.
        """

    def equivalent(self) -> Regime | None:
        """The regime whose released model this one's equals by construction, if any."""
        return None

    def query_pairs(
        self, trained: Trained, states: dict[int, dict[str, torch.Tensor]], x: torch.Tensor
    ) -> tuple[Pairs, ...]:
        """Answers of an activation oracle at the given steps (``pairs=query``); empty = none."""
        return ()
