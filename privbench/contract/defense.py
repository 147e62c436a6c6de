"""Defenses: those that change messages, and those that change learning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from privbench.contract.attack import PrivacyCost
from privbench.contract.message import Message
from privbench.contract.recipe import GaussianMechanism


class MessageDefense(ABC):
    """Changes messages before they leave: once per producer and sample, then copies go out.

    Subclasses are frozen dataclasses. ``kinds`` lists the message kinds it is applied to.
    ``source`` cites the paper, or says ``none: `` and why there is none. A ``double`` sends every
    message as it is, on purpose.
    """

    kinds: ClassVar[tuple[str, ...]]
    source: ClassVar[str]
    double: ClassVar[bool] = False

    @abstractmethod
    def send(self, message: Message, rng: torch.Generator) -> Message:
        """What is sent instead, or the message itself where it stays as it is.

        All randomness comes from ``rng``.
        """

    def cost(self) -> PrivacyCost | None:
        """The guarantee it gives, None = no formal guarantee."""
        return None


class Observed(NamedTuple):
    """What an auditor of every step wrote down: gradient canaries, and what was released along them.

    A canary takes part in a step if the record whose place it takes is in the batch (``drawn``) and its
    coin of that step says so (``coins``: the secret). ``seen`` is the released sum along the canary's
    direction, in units of the clip; 0 where it was not drawn.
    """

    coins: Bool[Tensor, "steps canaries"]
    drawn: Bool[Tensor, "steps canaries"]
    seen: Float[Tensor, "steps canaries"]


class Wrapped(NamedTuple):
    """What a training loop goes on with; ``observed`` tells, afterwards, what gradient canaries saw."""

    net: nn.Module
    optimizer: Optimizer
    batches: Iterator[Int64[Tensor, " batch"]]  # positions of the records of each batch, endless
    observed: Callable[[], Observed] | None = None


class LearningDefense(ABC):
    """Changes how a model is learned (DP-SGD). Subclasses are frozen dataclasses."""

    source: ClassVar[str]

    @abstractmethod
    def resolved(self, records: int, batch: int, steps: int) -> LearningDefense:
        """The same defense with every setting fixed for that many records, batch and steps.

        Raises:
            TrainingError: what is asked (an epsilon) cannot be reached.
        """

    @abstractmethod
    def wrap(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        batches: Iterator[Int64[Tensor, " batch"]],
        rng: torch.Generator,
    ) -> Wrapped:
        """Private versions of network, optimiser and order of batches.

        The network's parameters stay the same objects, trained in place. All noise comes from
        ``rng``, which lives on the parameters' device.
        """

    @abstractmethod
    def cost(self) -> PrivacyCost | None:
        """The guarantee of a resolved defense."""

    def mechanism(self) -> GaussianMechanism | None:
        """Clipping and noise, if that is all it comes down to."""
        return None

    def bill(self, noise: float, rate: float, steps: int) -> float | None:
        """Epsilon that so many steps of this noise multiplier and sampling rate would spend."""
        return None

    @property
    def audited(self) -> bool:
        """Do its steps carry gradient canaries?"""
        return False

    def quiet(self) -> LearningDefense:
        """The same without gradient canaries: how others would train."""
        return self
