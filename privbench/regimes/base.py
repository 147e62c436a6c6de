"""What a regime is: a way to train a model over a wire."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import nn

from privbench.contract import (
    Augmentation,
    LearningDefense,
    Net,
    Observed,
    Pairs,
    PrivacyCost,
    Recipe,
    Spec,
    Topology,
    load_name,
    spec_of,
    steps_per_epoch,
)
from privbench.data.population import Population
from privbench.errors import NotApplicable, PrivbenchError, UsageError
from privbench.slicenet.graph import Graph
from privbench.slicenet.trace import trace
from privbench.wire.wire import Wire


@dataclass(frozen=True, eq=False)
class Trained:
    """What training leaves behind, beside what taps recorded.

    ``flops_per_sample`` and ``bytes_per_sample`` are for one visit of one record (all parties and
    links together). ``losses`` are those of the steps, see ``Curve.points``, over so many ``passes``.
    ``trainer`` is the import name by which a shadow of this model is trained. ``observed`` is what
    gradient canaries saw, where there were any; it is stored with the truth and the notes.
    """

    net: Net
    recipe: Recipe
    trainer: str
    topology: Topology
    bytes_per_sample: float
    flops_per_sample: float
    privacy: PrivacyCost | None = None
    losses: tuple[float, ...] = ()
    passes: float = 0.0
    observed: Observed | None = None


@dataclass(frozen=True, kw_only=True)
class Regime(ABC):
    """A training protocol. Subclasses add their own settings.

    Args:
        lr: learning rate.
        optimizer: import name of a torch optimiser.
        optimizer_args: its other arguments, for example ``{"momentum": 0.9}``.
        epochs: passes over the private records.
        batch: records a step (the expected number under a learning defense).
        decay: ``linear`` lets the learning rate fall to 0 over the steps of training (a client's own,
            in federated averaging); ``constant`` leaves it.
        clip: the largest L2 norm of a step's whole gradient (R. Pascanu, T. Mikolov, Y. Bengio: On the
            difficulty of training Recurrent Neural Networks, 2013, https://arxiv.org/abs/1211.5063);
            None = any. DP-SGD clips each record's by itself: ``learning.clip``.
        augmentation: makes the copies that are learned from in place of records, one at each visit;
            None = records as they are.
        learning: DP-SGD or the like; None = plain.

    ``trainer`` is the import name of the function that trains a shadow of its models.
    """

    name: ClassVar[str]
    trainer: ClassVar[str] = "privbench.regimes.training.train"
    carries_canaries: ClassVar[bool] = False  # gradient canaries of a learning defense

    lr: float = 0.3  # plain SGD; the digits MLP learns its 600 records by heart in 40 epochs
    optimizer: str = "torch.optim.SGD"  # without momentum: differences of weights are gradients
    optimizer_args: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 40  # passes
    batch: int = 32  # records
    decay: str = "constant"  # or linear
    clip: float | None = None  # L2 norm
    augmentation: Augmentation | None = None
    learning: LearningDefense | None = None

    def recipe(self, net: Net, records: int) -> Recipe:
        """How this regime trains ``net`` on that many records, as data.

        Raises:
            UsageError: a setting is out of range.
            TrainingError: the learning defense cannot reach what is asked of it.
        """
        self._check()
        spec = Spec(self.optimizer, {"lr": self.lr, **self.optimizer_args})
        recipe = Recipe(
            net=net,
            optimizer=spec,
            epochs=self.epochs,
            batch=self.batch,
            decay=self.decay,
            clip=self.clip,
            augmentation=None if self.augmentation is None else spec_of(self.augmentation),
        )
        if self.learning is None:
            return recipe
        steps = self.epochs * steps_per_epoch(recipe, records)
        return private(recipe, self.learning, records, steps)

    def _check(self) -> None:
        """Refuse settings that train nothing."""
        for name in ("lr", "epochs", "batch"):
            value = getattr(self, name)
            if value is None or not value > 0:
                raise UsageError(f"regime.{name}={value}; expected a number above 0")
        if self.clip is not None and not self.clip > 0:
            raise UsageError(
                f"regime.clip={self.clip}; expected a norm above 0, or null for no bound"
            )
        if self.clip is not None and self.learning is not None:
            raise UsageError(
                f"regime.clip={self.clip} with a learning defense: it bounds each record's gradient, "
                "by regime.learning.clip; leave regime.clip out"
            )
        if self.decay not in ("constant", "linear"):
            raise UsageError(f"regime.decay='{self.decay}'; expected constant or linear")
        if not isinstance(self.augmentation, Augmentation | None):
            raise UsageError(
                f"regime.augmentation={self.augmentation}; expected privbench's Augmentation: choose one "
                "by name, for example augmentation=mirrored, and then its settings"
            )
        if not isinstance(self.optimizer_args, Mapping):
            raise UsageError(
                f"regime.optimizer_args={self.optimizer_args}; expected names and values, for example "
                "regime.optimizer_args.momentum=0.9"
            )
        self._check_canaries()
        _check_optimizer(Spec(self.optimizer, {"lr": self.lr, **self.optimizer_args}))

    def _check_canaries(self) -> None:
        """Refuse gradient canaries where nobody would write down what they see."""
        if self.learning is not None and self.learning.audited and not self.carries_canaries:
            raise UsageError(
                f"regime={self.name} carries no gradient canaries, regime=dpsgd_audited does; leave "
                "regime.learning.canaries out"
            )

    @abstractmethod
    def train(
        self, net: Net, population: Population, wire: Wire, rng: torch.Generator, device: str
    ) -> Trained:
        """Train ``net`` on the population's private records over the wire.

        Randomness: initial weights from ``child_rng(rng, "init")``, batches from
        ``child_rng(rng, "batches")``, so that regimes with equal batches have equal ones.

        Raises:
            UsageError: a setting is out of range.
            TrainingError: NaN, or a privacy budget out of reach.
            BudgetError: no slicing fits the devices.
        """

    def departs(self, altered: bool) -> bool:
        """Was something else learned than ``trainer`` learns by the recipe alone?

        Args:
            altered: a defense changed messages.
        """
        return altered

    def rehearsed(self, recipe: Recipe, records: int) -> Regime:
        """The same protocol, as others run it on so many records to train a shadow."""
        return self

    def equivalent(self) -> Regime | None:
        """The regime whose released model this one's equals by construction, if any."""
        return None

    def query_pairs(
        self, trained: Trained, states: dict[int, dict[str, torch.Tensor]], x: torch.Tensor
    ) -> tuple[Pairs, ...]:
        """Answers of an activation oracle at the given steps (``pairs=query``); empty = none."""
        return ()


def graph_of(
    regime: str, module: nn.Module, shape: Sequence[int], stem: int, labels: str = "tail"
) -> Graph:
    """``trace``, for a regime that cuts networks: one that it cannot cut is no failure of a run.

    Raises:
        NotApplicable: the network has too few layers, or is no chain.
        UsageError: ``stem`` is not at least 1.
    """
    if type(stem) is not int or stem < 1:
        raise UsageError(
            f"regime.stem={stem}; expected at least 1: samples must not leave their owners"
        )
    try:
        return trace(module, shape, stem, labels)
    except UsageError as cause:
        raise NotApplicable(f"regime={regime} cannot cut this network: {cause}") from cause


def private(recipe: Recipe, learning: LearningDefense, records: int, steps: int) -> Recipe:
    """The same recipe under a learning defense, resolved for that many records and steps.

    Batches are drawn by Poisson sampling, on which the privacy accounting rests.
    """
    resolved = learning.resolved(records, recipe.batch, steps)
    return replace(
        recipe, learning=spec_of(resolved), mechanism=resolved.mechanism(), sampling="poisson"
    )


def defenses_of(wire: Wire) -> tuple[Spec, ...]:
    """The message defenses in force, as data: an adaptive attacker knows them."""
    return tuple(spec_of(defense) for defense in wire.defenses)


def privacy_of(recipe: Recipe) -> PrivacyCost | None:
    """The guarantee that a recipe's learning defense gives; None = none."""
    return None if recipe.learning is None else recipe.learning.build().cost()


def _check_optimizer(spec: Spec) -> None:
    """Let the optimiser take one step on a parameter of no network: its settings are tried there.

    Raises:
        UsageError: there is no such optimiser, or it refuses its settings.
    """
    try:
        made = load_name(str(spec.target))
    except PrivbenchError as cause:
        known = [name for name, kind in vars(torch.optim).items() if isinstance(kind, type)]
        near = difflib.get_close_matches(str(spec.target).rpartition(".")[2], known, n=1)
        raise UsageError(
            f"regime.optimizer={spec.target}: there is no such optimiser; expected an import name, "
            f"for example torch.optim.{near[0] if near else 'SGD'}"
        ) from cause
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.zeros(2, 2)
    try:
        made([weight], **spec.kwargs).step()
    except Exception as cause:  # whatever a class raises that is no optimiser, or is set wrong
        raise UsageError(
            f"regime.optimizer={spec.target} cannot train with {dict(spec.kwargs)}: {cause}; expected a "
            "torch optimiser with settings that it takes (regime.lr, regime.optimizer_args)"
        ) from cause
