"""Federated averaging: clients keep their records and send updates of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import (
    HEADER_BYTES,
    Federation,
    Message,
    Net,
    PrivacyCost,
    Recipe,
    Samples,
    Topology,
    child_rng,
)
from privbench.data.population import Population
from privbench.errors import UsageError
from privbench.regimes.base import Regime, Trained, defenses_of, privacy_of, private
from privbench.regimes.federation import Direct, Exchange, State, Work, federate, federation_of
from privbench.regimes.training import training_flops
from privbench.wire.wire import Wire


def federated_train(recipe: Recipe, samples: Samples, rng: torch.Generator) -> Net:
    """Train one model by federated averaging (a ``Trainer``).

    Args:
        recipe: with ``federation``.
        samples: ``x (n, *shape)``, ``y (n,)``; dealt to the clients in equal random shares.
        rng: initial weights come from its child ``init``, the shares from ``shares``, client k's
            batches from ``client/k`` and its noise from ``noise/k``.

    Raises:
        UsageError: there are fewer records than clients.
        TrainingError: training gave NaN.
    """
    clients = federation_of(recipe).clients
    order = torch.randperm(len(samples), generator=child_rng(rng, "shares"))
    return federate(recipe, samples, order.tensor_split(clients), rng, Direct()).net


@dataclass(frozen=True, kw_only=True)
class FedAvg(Regime):
    """Federated averaging with all clients in every round.

    H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas: Communication-Efficient
    Learning of Deep Networks from Decentralized Data, 2016, https://arxiv.org/abs/1602.05629.
    We draw no fraction of the clients and count local optimiser steps instead of local epochs.

    With ``learning`` set to DP-SGD each client clips and noises its own steps; the guarantee is for
    a record against whoever sees the client's updates of all rounds, hence for the released model.

    Args:
        clients: they hold equal random shares of the private records.
        rounds: exchanges of models.
        local_steps: optimiser steps of a client in a round.

    ``epochs`` follows from these and is not read. With ``batch=1, local_steps=1`` an update is the
    gradient of one record. A *step* of the transcript is a round; its rows are the records that its
    clients used, client after client.
    """

    name: ClassVar[str] = "fedavg"
    trainer: ClassVar[str] = "privbench.regimes.fedavg.federated_train"

    batch: int = 10  # records of one client a step
    clients: int = 12
    rounds: int = 60
    local_steps: int = 5  # an epoch of the digits, where a client holds 50 records

    def recipe(self, net: Net, records: int) -> Recipe:
        """See ``Regime.recipe``; a client with the fewest records has the least privacy: it counts."""
        self._check_canaries()
        recipe = replace(self, learning=None)._plain(net, records)
        if self.learning is None:
            return recipe
        fewest = max(1, records // self.clients)
        return private(recipe, self.learning, fewest, self.rounds * self.local_steps)

    def _plain(self, net: Net, records: int) -> Recipe:
        recipe = super().recipe(net, records)
        federation = Federation(self.clients, self.rounds, self.local_steps)
        return replace(recipe, epochs=self._epochs(records), federation=federation)

    def _epochs(self, records: int) -> int:
        """Passes of a client over its own records, rounded up."""
        steps = max(1, -(-(records // self.clients) // self.batch))
        return -(-self.rounds * self.local_steps // steps)

    def train(
        self, net: Net, population: Population, wire: Wire, rng: torch.Generator, device: str
    ) -> Trained:
        """See ``Regime.train``."""
        samples = population.train.to(device)
        recipe = self.recipe(net, len(samples))
        shares = population.share(self.clients, child_rng(rng, "shares"))
        parties = tuple(f"client-{k}" for k in range(self.clients))
        topology = Topology(
            regime=self.name,
            parties=("server", *parties),
            owners=parties,
            net=replace(net, weights=None),
            steps=self.rounds,
            steps_per_epoch=self._rounds_per_epoch(len(samples)),
            defenses=defenses_of(wire),
        )
        wire.open(topology)
        exchange = OverWire(wire, population, parties)
        model = federate(recipe, samples, shares, rng, exchange)
        return Trained(
            net=model.net,
            recipe=recipe,
            trainer=self.trainer,
            topology=topology,
            bytes_per_sample=sum(wire.bytes.values()) / max(1, exchange.visits),
            flops_per_sample=training_flops(net, samples),
            privacy=_covering(privacy_of(recipe)),
            losses=model.losses,
            passes=exchange.visits / len(samples),
        )

    def _rounds_per_epoch(self, records: int) -> int:
        steps = max(1, -(-(records // self.clients) // self.batch))
        return max(1, min(self.rounds, -(-steps // self.local_steps)))

    def _check(self) -> None:
        super()._check()
        for name in ("clients", "rounds", "local_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"regime.{name}={getattr(self, name)}; expected at least 1")


def _covering(cost: PrivacyCost | None) -> PrivacyCost | None:
    """A client's guarantee is for all that it sends."""
    return None if cost is None else replace(cost, covers="updates")


class OverWire(Exchange):
    """Server and clients talk over a wire; the truth learns which records each round used.

    Args:
        wire: opened.
        population: holds the records.
        parties: names of the clients, in order.

    ``visits`` counts how often a record was learned from.
    """

    def __init__(self, wire: Wire, population: Population, parties: Sequence[str]) -> None:
        self.visits = 0
        self._wire = wire
        self._population = population
        self._parties = tuple(parties)
        self._rows: list[Int64[Tensor, " _rows"]] = []

    def begin(self, number: int, state: State, work: Sequence[Work]) -> None:
        """Note the rows of the round, and the model in force."""
        used = [each.records() for each in work]
        sizes = torch.tensor([len(records) for records in used])
        self._rows = list(torch.arange(int(sizes.sum())).split(sizes.tolist()))
        self._population.note(number, torch.cat(used))
        self._wire.begin(number, torch.repeat_interleave(torch.arange(len(used)), sizes))
        if self._wire.watches(number):
            self._wire.hold(number, state)
        self.visits += sum(len(batch) for each in work for batch in each.batches)

    def broadcast(self, number: int, client: int, state: State) -> State:
        """One message a parameter tensor, from the server."""
        return self._carry(number, "server", self._parties[client], "global_weights", state)

    def collect(self, number: int, client: int, update: State) -> State:
        """One message a parameter tensor, to the server; it names the rows behind it."""
        return self._carry(
            number, self._parties[client], "server", "update", update, self._rows[client]
        )

    def _carry(
        self,
        number: int,
        sender: str,
        receiver: str,
        kind: str,
        state: State,
        rows: Int64[Tensor, " rows"] | None = None,
    ) -> State:
        if not self._wire.wants(number, kind):
            size = sum(t.numel() * t.element_size() + HEADER_BYTES for t in state.values())
            self._wire.count(kind, size)
            return state
        named = torch.empty(0, dtype=torch.int64) if rows is None else rows
        return {
            name: self._wire.send(
                Message(number, "train", sender, receiver, kind, name, None, tensor.clone(), named)
            ).payload
            for name, tensor in state.items()
        }
