"""The rounds of federated averaging, whoever carries models and updates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Federation, Net, Recipe, Samples, child_rng, counted, finite
from privbench.errors import UsageError
from privbench.regimes.curve import mean_of
from privbench.regimes.training import Learner, started

State = dict[str, Tensor]
"""Floating-point tensors of a network by their names in the state dict."""


@dataclass(frozen=True, eq=False)
class Work:
    """What one client is going to learn from in a round: positions in the whole data, by step."""

    client: int
    batches: tuple[Int64[Tensor, " _batch"], ...]

    def records(self) -> Int64[Tensor, " n"]:
        """Each record once, in rising order."""
        return torch.unique(torch.cat(self.batches))


class Exchange(ABC):
    """How models and updates pass between server and clients."""

    @abstractmethod
    def begin(self, number: int, state: State, work: Sequence[Work]) -> None:
        """A round starts with this global model."""

    @abstractmethod
    def broadcast(self, number: int, client: int, state: State) -> State:
        """What a client receives of the global model."""

    @abstractmethod
    def collect(self, number: int, client: int, update: State) -> State:
        """What the server receives of a client's update."""


class Direct(Exchange):
    """Everything arrives as it was sent, and nobody listens."""

    def begin(self, number: int, state: State, work: Sequence[Work]) -> None:
        """Nothing to note."""

    def broadcast(self, number: int, client: int, state: State) -> State:
        """The state itself."""
        return state

    def collect(self, number: int, client: int, update: State) -> State:
        """The update itself."""
        return update


@dataclass(frozen=True, eq=False)
class Federated:
    """What the rounds leave: the global model, and the mean loss of all clients at each local step."""

    net: Net
    losses: tuple[float, ...]


def federate(
    recipe: Recipe,
    samples: Samples,
    shares: Sequence[Int64[Tensor, " _share"]],
    rng: torch.Generator,
    exchange: Exchange,
) -> Federated:
    """The rounds of federated averaging.

    In each round every client starts from the global model with a fresh optimiser and takes
    ``local_steps`` steps; the server adds the clients' updates (local minus global), weighted by
    their numbers of records.
    """
    federation = federation_of(recipe)
    if not all(len(share) for share in shares):
        raise UsageError(
            f"{len(samples)} records cannot be shared by {len(shares)} clients; expected at least "
            "one record a client: set regime.clients=... lower"
        )
    start = started(recipe, rng)
    learners = [
        Learner(start, samples[share], child_rng(rng, "client", k), child_rng(rng, "noise", k))
        for k, share in enumerate(shares)
    ]
    weights = [len(share) / len(samples) for share in shares]
    model = start.net.module().to(samples.x)
    state = _floating(model.state_dict())
    for number in counted(range(federation.rounds)):
        drawn = [[learner.draw() for _ in range(federation.local_steps)] for learner in learners]
        work = [
            Work(k, tuple(share[batch] for batch in batches))
            for k, (share, batches) in enumerate(zip(shares, drawn, strict=True))
        ]
        exchange.begin(number, state, work)
        total = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        for client, (learner, batches) in enumerate(zip(learners, drawn, strict=True)):
            received = exchange.broadcast(number, client, state)
            update = exchange.collect(number, client, _local(learner, received, batches))
            for name, tensor in update.items():
                total[name] += weights[client] * tensor
        state = {name: tensor + total[name] for name, tensor in state.items()}
    model.load_state_dict({**learners[0].state(), **state})
    curve = mean_of([learner.curve for learner in learners])
    return Federated(finite(recipe.net.holding(model)), curve)


def _local(learner: Learner, received: State, batches: Sequence[Tensor]) -> State:
    """One client's round: its update."""
    learner.restart(received)
    for batch in batches:
        learner.learn(batch)
    local = learner.state()
    return {name: local[name] - tensor for name, tensor in received.items()}


def _floating(state: dict[str, Tensor]) -> State:
    """What can be averaged; counters of batches stay with the clients."""
    return {k: v.detach().clone() for k, v in state.items() if v.is_floating_point()}


def federation_of(recipe: Recipe) -> Federation:
    """How a recipe federates.

    Raises:
        UsageError: it does not.
    """
    if recipe.federation is None:
        raise UsageError("a recipe for federated averaging says clients, rounds and local steps")
    return recipe.federation
