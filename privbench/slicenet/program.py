"""The program of one process: its parties, phase by phase, in step with all others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Party, Samples, augmented
from privbench.slicenet.briefing import Private, Public, Watcher
from privbench.slicenet.device import Host, Owner
from privbench.slicenet.graph import Graph, parameters_of
from privbench.slicenet.noise import Noise, seeded
from privbench.slicenet.office import Coordinator, Releaser
from privbench.slicenet.parcels import COORDINATOR, RELEASER
from privbench.slicenet.schedule import Envelope, Part, Schedule
from privbench.slicenet.scorer import Scorer
from privbench.slicenet.skeleton import Order, Skeleton
from privbench.slicenet.transport import Delivery, Transport

CPU = torch.device("cpu")


class Program:
    """Parties of one process, and all they do in a step.

    Args:
        public: what everyone is told.
        private: what this process is told.
        transport: to all parties, in this process and in others.
        watcher: of weights.
    """

    def __init__(
        self, public: Public, private: Private, transport: Transport, watcher: Watcher
    ) -> None:
        self._transport, self._watcher = transport, watcher
        self._noise, self._step = Noise(public.noise_seed), 0
        graph = public.graph()
        self.schedule = Schedule(public.topology, graph)
        self._layers = {layer.name: layer for layer in public.topology.layers}
        self._orders = {name: Order(range(each.channels)) for name, each in self._layers.items()}
        skeleton, here = Skeleton(graph), frozenset(private.parties)
        slices, make = public.topology.slices, public.optimizer
        self._slices = slices
        self._hosts = {
            name: Host(name, skeleton, [s for s in slices if s.party == name], make)
            for name in private.parties
            if name not in (COORDINATOR, RELEASER)
        }
        loss = getattr(F, public.recipe.loss)
        draws = torch.Generator().manual_seed(public.noise_seed)

        def copied(own: Samples, records: Tensor, rows: Tensor) -> Samples:
            return augmented(public.recipe, own, records, draws, self._step, rows)

        self._owners = {
            name: Owner(skeleton, public.constants, holdings, loss, copied)
            for name, holdings in private.holdings.items()
        }
        self._scorer = Scorer(loss) if self.schedule.scorer in here else None
        self._coordinator, self.releaser = _office(public, private, graph, here)
        self._clip = public.recipe.clip
        self._counters(public)
        skeleton.strip()
        self._parts = [part for part in self.schedule.parts if part.party in here]

    def _counters(self, public: Public) -> None:
        """Whole numbers (batches that a norm has seen) are known at first, and not sent."""
        for part in self.schedule.parts:
            if not part.moves and part.piece is not None and part.party in self._hosts:
                piece = self._slices[part.piece]
                value = piece.part(public.constants[part.name])
                if value is not None:
                    self._hosts[part.party].works[piece.layer].hold(piece, part.name, value)

    def step(
        self,
        number: int,
        owners: Int64[Tensor, " rows"],
        records: Int64[Tensor, " rows"],
        last: bool,
    ) -> None:
        """One training step.

        Args:
            number: from 0; before the first, slices are handed out.
            owners: number of each row's owner.
            records: number of each row's record, as owners know them.
            last: hand slices in afterwards.
        """
        self._step = self._noise.step = number
        self.schedule.begin(owners)
        for host in self._hosts.values():
            host.begin()
        for name, rows in self.schedule.groups.items():
            if name in self._owners:
                self._owners[name].begin(rows, records)
        if number == 0:
            self._carry(self.schedule.handed_out(), self._handed_out, self._got_slice)
        if self._watcher.wants(number):
            self._watcher.hold(number, [(part, self.part(part)) for part in self._parts])
        for place in ("stem", "tail"):
            self._carry(self.schedule.broadcasts(place), self._broadcast, self._heard)
        with seeded(self._noise.seed + number, CPU):
            self._forward()
            self._backward()
        if self._clip is not None:
            self._carry(self.schedule.norms(), self._square, self._got_square)
            self._carry(self.schedule.factors(), self._factor, self._got_factor)
        for host in self._hosts.values():
            host.learn()
        if self._coordinator is not None:
            self._coordinator.learn()
        if last:
            self._carry(self.schedule.handed_in(), self._handed_in, self._put)

    @property
    def loss(self) -> float:
        """Of the mean loss of the last step's batch, what was computed here."""
        if self.schedule.scorer is not None:
            return 0.0 if self._scorer is None else self._scorer.loss
        return sum(self._owners[n].loss for n in self.schedule.groups if n in self._owners)

    def part(self, part: Part) -> Tensor:
        """A copy of what a party of this process holds."""
        if part.piece is not None:
            piece = self._slices[part.piece]
            return self._hosts[part.party].works[piece.layer].part(piece, part.name)
        return self._office().part(part.name)

    def counters(self) -> dict[tuple[int, str], Tensor]:
        """Whole numbers of the hosts of this process, by tile and name."""
        return {
            (part.piece, part.name): self.part(part)
            for part in self._parts
            if not part.moves and part.piece is not None
        }

    def _forward(self) -> None:
        present = [self._owners[name] for name in self.schedule.groups if name in self._owners]
        for owner in present:
            owner.forward(self._noise)
        for layer in self.schedule.stem:
            self._keep_stem(layer)
            self._carry(self.schedule.activations(layer), self._activation, self._got_activation)
        for layer in self.schedule.body:
            hosts = self._hosts_of(layer)
            for host in hosts:
                host.spread(layer, self._noise)
            self._carry(self.schedule.partial_sums(layer), self._partial, self._got_partial)
            for host in hosts:
                host.finish(layer, self._noise)
            self._keep_body(layer)
            self._carry(self.schedule.activations(layer), self._activation, self._got_activation)
        if self.schedule.scorer is not None:
            self._score(self.schedule.scorer, self.schedule.last)
            return
        for owner in present:
            owner.turn(self.schedule.batch, self._noise)

    def _score(self, scorer: Party, layer: str) -> None:
        """The loss and the gradient of the logits, where a host has gathered these."""
        if self._scorer is not None:
            self._scorer.begin(self.schedule.batch)
            if scorer in self._owners and scorer in self.schedule.groups:
                self._scorer.hear(self.schedule.groups[scorer], self._owners[scorer].labels)
        self._carry(self.schedule.labels(), self._labels, self._got_labels)
        if self._scorer is not None:
            host, units = self._hosts[scorer], tuple(range(self._layers[layer].channels))
            slope = self._scorer.slope(host.out(layer, None, units))
            host.receive_gradient(layer, None, units, slope)

    def _backward(self) -> None:
        self._carry(self.schedule.owner_gradients("tail"), self._owned, self._added)
        for layer in reversed(self.schedule.body):
            hosts = self._hosts_of(layer)
            self._carry(self.schedule.gradients(layer), self._gradient, self._got_gradient)
            self._return_body(layer)
            for host in hosts:
                host.turn(layer)
            self._carry(self.schedule.sum_gradients(layer), self._delta, self._got_delta)
            for host in hosts:
                host.backward(layer)
        for layer in reversed(self.schedule.stem):
            self._carry(self.schedule.gradients(layer), self._gradient, self._got_gradient)
            self._return_stem(layer)
        for name in self.schedule.groups:
            if name in self._owners:
                self._owners[name].backward()
        self._carry(self.schedule.owner_gradients("stem"), self._owned, self._added)

    def _hosts_of(self, layer: str) -> list[Host]:
        return [host for host in self._hosts.values() if layer in host.works]

    def _carry(
        self,
        envelopes: Sequence[Envelope],
        written: Callable[[Envelope], Tensor],
        read: Callable[[Envelope, Tensor], None],
    ) -> None:
        """One phase: ``written`` gives the contents where the sender is here, ``read`` takes what came."""
        if not envelopes:
            return
        payloads = [written(each) if self._here(each.sender) else None for each in envelopes]
        delivered: list[Delivery] = self._transport.carry(self._step, envelopes, payloads)
        for each in delivered:
            read(each.envelope, each.message.payload)

    def _here(self, party: Party) -> bool:
        if party == COORDINATOR:
            return self._coordinator is not None
        return self.releaser is not None if party == RELEASER else party in self._hosts

    def _rows(self, envelope: Envelope) -> Any:
        """Index of rows; None = all of the batch."""
        return None if len(envelope.rows) == self.schedule.batch else envelope.rows

    def _handed_out(self, envelope: Envelope) -> Tensor:
        assert self.releaser is not None
        return self.releaser.part(envelope.layer, envelope.piece)

    def _got_slice(self, envelope: Envelope, payload: Tensor) -> None:
        if envelope.piece is None:
            self._office().hold(envelope.layer, payload)
        else:
            piece = self._slices[envelope.piece]
            self._hosts[envelope.receiver].works[piece.layer].hold(piece, envelope.layer, payload)

    def _handed_in(self, envelope: Envelope) -> Tensor:
        return self.part(
            Part(envelope.sender, envelope.layer, envelope.units, envelope.shape, envelope.piece)
        )

    def _put(self, envelope: Envelope, payload: Tensor) -> None:
        assert self.releaser is not None
        self.releaser.hold(envelope.layer, envelope.piece, payload)

    def _broadcast(self, envelope: Envelope) -> Tensor:
        return self._office().part(envelope.layer)

    def _heard(self, envelope: Envelope, payload: Tensor) -> None:
        self._owners[envelope.receiver].hear(envelope.layer, payload)

    def _activation(self, envelope: Envelope) -> Tensor:
        units = envelope.units or ()
        if envelope.from_owner:
            place = self._orders[envelope.layer].place(units)
            return self._owners[envelope.sender].value(envelope.layer)[:, place]
        return self._hosts[envelope.sender].out(envelope.layer, self._rows(envelope), units)

    def _got_activation(self, envelope: Envelope, payload: Tensor) -> None:
        layer = self._layers[envelope.layer]
        place = self._orders[layer.name].place(envelope.units or ())
        if envelope.to_owner:
            self._owners[envelope.receiver].receive(layer, place, payload)
        else:
            rows, host = self._rows(envelope), self._hosts[envelope.receiver]
            host.receive(layer, self.schedule.batch, rows, place, payload)

    def _keep_stem(self, layer: str) -> None:
        """What an owner needs as a host stays with it."""
        for name, rows in self.schedule.groups.items():
            if name in self._owners and layer in self._hosts[name].needs:
                value = self._owners[name].value(layer)
                self._hosts[name].receive(
                    self._layers[layer], self.schedule.batch, rows, slice(None), value
                )

    def _keep_body(self, layer: str) -> None:
        """What a host needs for other tiles, or as an owner, stays with it."""
        described = self._layers[layer]
        for host in self._hosts_of(layer):
            units = host.works[layer].finished
            if not units:
                continue
            place = self._orders[layer].place(units)
            if layer in host.needs:
                out = host.out(layer, None, units)
                host.receive(described, self.schedule.batch, None, place, out)
            rows = self.schedule.groups.get(host.name)
            if rows is not None and self.schedule.feeds_tail(layer):
                self._owners[host.name].receive(described, place, host.out(layer, rows, units))

    def _labels(self, envelope: Envelope) -> Tensor:
        return self._owners[envelope.sender].labels

    def _got_labels(self, envelope: Envelope, payload: Tensor) -> None:
        assert self._scorer is not None
        self._scorer.hear(envelope.rows, payload)

    def _partial(self, envelope: Envelope) -> Tensor:
        return self._hosts[envelope.sender].partial(envelope.layer, envelope.units or ())

    def _got_partial(self, envelope: Envelope, payload: Tensor) -> None:
        self._hosts[envelope.receiver].add(envelope.layer, envelope.units or (), payload)

    def _delta(self, envelope: Envelope) -> Tensor:
        return self._hosts[envelope.sender].delta(envelope.layer, envelope.units or ())

    def _got_delta(self, envelope: Envelope, payload: Tensor) -> None:
        layer = self._layers[envelope.layer]
        self._hosts[envelope.receiver].receive_delta(layer, envelope.units or (), payload)

    def _gradient(self, envelope: Envelope) -> Tensor:
        place = self._orders[envelope.layer].place(envelope.units or ())
        if envelope.from_owner:
            return self._owners[envelope.sender].slopes[envelope.layer][:, place]
        flow, rows = self._hosts[envelope.sender].flows[envelope.layer], self._rows(envelope)
        return flow[:, place] if rows is None else flow[rows][:, place]

    def _got_gradient(self, envelope: Envelope, payload: Tensor) -> None:
        units = envelope.units or ()
        if envelope.to_owner:
            place = self._orders[envelope.layer].place(units)
            self._owners[envelope.receiver].receive_gradient(envelope.layer, place, payload)
        else:
            host = self._hosts[envelope.receiver]
            host.receive_gradient(envelope.layer, self._rows(envelope), units, payload)

    def _return_body(self, layer: str) -> None:
        """Gradients of what a host kept for itself."""
        for host in self._hosts_of(layer):
            units = host.works[layer].finished
            if not units:
                continue
            place = self._orders[layer].place(units)
            if layer in host.flows:
                host.receive_gradient(layer, None, units, host.flows[layer][:, place])
            rows = self.schedule.groups.get(host.name)
            if rows is not None and self.schedule.feeds_tail(layer):
                slope = self._owners[host.name].slopes[layer][:, place]
                host.receive_gradient(layer, rows, units, slope)

    def _return_stem(self, layer: str) -> None:
        for name, rows in self.schedule.groups.items():
            if name in self._owners and layer in self._hosts[name].flows:
                flow = self._hosts[name].flows[layer][rows]
                self._owners[name].receive_gradient(layer, slice(None), flow)

    def _owned(self, envelope: Envelope) -> Tensor:
        return self._owners[envelope.sender].gradients[envelope.layer]

    def _added(self, envelope: Envelope, payload: Tensor) -> None:
        self._office().add(envelope.layer, payload)

    def _square(self, envelope: Envelope) -> Tensor:
        return self._hosts[envelope.sender].square()

    def _got_square(self, envelope: Envelope, payload: Tensor) -> None:
        self._office().hear(payload)

    def _factor(self, envelope: Envelope) -> Tensor:
        assert self._clip is not None
        return self._office().clipped(self._clip)

    def _got_factor(self, envelope: Envelope, payload: Tensor) -> None:
        self._hosts[envelope.receiver].scale(payload)

    def _office(self) -> Coordinator:
        assert self._coordinator is not None
        return self._coordinator


def _office(
    public: Public, private: Private, graph: Graph, here: Collection[Party]
) -> tuple[Coordinator | None, Releaser | None]:
    """Coordinator and releaser, where they live here."""
    coordinator = releaser = None
    if COORDINATOR in here:
        stages = (*graph.placed("stem"), *graph.placed("tail"))
        coordinator = Coordinator(public.optimizer, parameters_of(stages))
    if RELEASER in here and private.state is not None:
        releaser = Releaser(private.state, public.topology.slices)
    return coordinator, releaser
