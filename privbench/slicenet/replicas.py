"""Several replicas of the network, each on devices of its own, that average their slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from privbench.contract import HEADER_BYTES, Message, Samples, Slice, Topology, no_rows
from privbench.errors import UsageError
from privbench.slicenet.engine import Simulated
from privbench.slicenet.graph import Graph, held_by
from privbench.slicenet.noise import Noise
from privbench.slicenet.parcels import COORDINATOR
from privbench.slicenet.replica_lines import Line, ReplicaRouter, parts_of, replica_of_owners
from privbench.wire.router import EVERYONE
from privbench.wire.wire import Wire


class _Copy(Simulated):
    """One replica: computes gradients on its part of each batch; the crowd updates it."""

    def __init__(
        self,
        number: int,
        built: tuple[nn.Module, Graph],
        topology: Topology,
        wire: Wire,
        make: Callable[[Sequence[Tensor]], Optimizer],
        loss: str,
        noise_seed: int,
    ) -> None:
        module, graph = built
        self.line, self.masks = Line(wire, number), Noise(noise_seed)
        self.pieces, self.stages = topology.slices, graph.stages
        self.tensors = {stage.layer.name: stage.tensors for stage in graph.placed("body")}
        self.body = {
            name: tensor
            for tensors in self.tensors.values()
            for name, tensor in tensors.items()
            if tensor.requires_grad
        }
        self.optimizer = make(list(self.body.values())) if self.body else None
        self.module, self.rows = module, no_rows()
        self._weight = 1.0
        super().__init__(module, graph, topology, self.line, self.optimizer, loss, noise_seed)  # type: ignore[arg-type]
        self._noise = self.masks

    @property
    def owned(self) -> dict[str, dict[str, Tensor]]:
        """Tensors of stem and tail."""
        return self._owned

    def attend(self, number: int, rows: Int64[Tensor, " n"]) -> None:
        """A step begins, in which these rows of the batch are its own."""
        self.rows = self.line.rows = self.masks.rows = rows
        self._step = self.masks.step = number
        self._rows = torch.arange(len(rows))

    def differentiate(self, batch: Samples, owners: Int64[Tensor, " rows"]) -> Tensor:
        """Gradients of the mean loss of a whole batch, as far as its own rows go; its part of it."""
        self._weight = len(self.rows) / len(owners)
        self._router.begin(self._step, owners[self.rows])
        return self._differentiate(self._step, batch[self.rows.to(batch.x.device)])

    def learn(self) -> None:
        """A step of its body, on the mean over its own rows."""
        for tensor in self.body.values():
            if tensor.grad is not None:
                tensor.grad = tensor.grad / self._weight
        if self.optimizer is not None:
            self.optimizer.step()

    def move(self, to_hosts: bool, owned: bool) -> None:
        """Slices (and stem and tail) from the releaser, or to it."""
        self._parcels.slices(self._step, self._links.pieces, to_hosts, owned)

    def _mean(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        return super()._mean(logits, labels) * self._weight


class Replicated:
    """Trains several replicas of a sliced network, each on the rows that its own devices hold.

    The batch is that of one replica; stem and tail are common, with one coordinator. A host steps on
    the mean gradient of its replica's rows: it scales what it finds, for the owners divide the loss
    by the whole batch. A replica without rows in a step waits. Every ``every`` steps, and after the
    last, the hosts of each slice average its parameters, weighted by the rows seen since: each sends
    its own to the host in replica 0 (if it saw any row) and gets the mean back. Optimisers keep what they
    remember. After S. U. Stich, "Local SGD Converges Fast and Communicates Little", ICLR 2019,
    https://arxiv.org/abs/1805.09767, and McMahan et al., "Communication-Efficient Learning of Deep
    Networks from Decentralized Data", AISTATS 2017, https://arxiv.org/abs/1602.05629; differs by a stem
    and tail that all replicas share, and by replicas that are sliced.

    With ``every`` 1 and plain SGD (weight decay may be on) this is centralized training.

    Args:
        built: a network and its stages for each replica; all start alike, and the first one ends with
            the average.
        topology: with slices of all replicas, each in the same order of tiles.
        wire: not yet opened.
        make: an optimiser over some tensors.
        loss: name in ``torch.nn.functional``, the mean over rows.
        noise_seed: as for ``Simulated``.
        every: steps between averages.

    Raises:
        UsageError: an active attack stands on the wire.
    """

    def __init__(
        self,
        built: Sequence[tuple[nn.Module, Graph]],
        topology: Topology,
        wire: Wire,
        make: Callable[[Sequence[Tensor]], Optimizer],
        loss: str,
        noise_seed: int,
        every: int,
    ) -> None:
        if wire.actor is not None:
            raise UsageError(
                f"regime.replicas={len(built)} does without active attacks: leave regime.replicas out, or "
                "choose an attack that listens"
            )
        self._topology, self._wire, self._every = topology, wire, every
        self._copies = [
            _Copy(number, each, part, wire, make, loss, noise_seed)
            for number, (each, part) in enumerate(zip(built, parts_of(topology), strict=True))
        ]
        self._owned = {n: t for place in self._copies[0].owned.values() for n, t in place.items()}
        self._optimizer = make(list(self._owned.values()))
        self._replica_of = replica_of_owners(topology)
        self._seen = [0] * len(self._copies)  # rows since the last average
        self._tile_bytes = sum(
            t.numel() * t.element_size() + HEADER_BYTES for _, _, t in self._parts(self._copies[0])
        )
        wire.open(topology, ReplicaRouter(topology))

    def step(self, number: int, batch: Samples, owners: Int64[Tensor, " rows"]) -> Tensor:
        """One training step; arguments and loss as those of ``Simulated.step``."""
        there = self._replica_of[owners]
        for place, copy in enumerate(self._copies):
            copy.attend(number, (there == place).nonzero().flatten())
        self._wire.begin(number, owners)
        if number == 0:
            for place, copy in enumerate(self._copies):
                copy.move(to_hosts=True, owned=place == 0)
        if self._wire.watches(number):
            self._wire.hold(number, self._state())
        self._broadcast(number, len(owners.unique()))
        learning = [copy for copy in self._copies if len(copy.rows)]
        losses = [copy.differentiate(batch, owners) for copy in learning]
        self._update(learning)
        last = number == self._topology.steps - 1
        if last or (number + 1) % self._every == 0:
            self._average(number)
        if last:
            self._copies[0].move(to_hosts=False, owned=True)
        return torch.stack(losses).sum()

    def _state(self) -> dict[str, Tensor]:
        """Parameters in force: the first replica's, and where the others differ theirs too."""
        state = self._copies[0].module.state_dict()
        if any(self._seen):
            for copy, group in zip(self._copies, self._topology.replicas, strict=True):
                for name, tensor in copy.body.items():
                    state[self._topology.name_at(name, group[0])] = tensor.detach()
        return state

    def _broadcast(self, number: int, owners: int) -> None:
        """The stem and tail in force, to the owners of this step's rows."""
        for place, tensors in self._copies[0].owned.items():
            kind = f"{place}_weights"
            for name, tensor in tensors.items():
                payload = tensor.detach().clone()
                message = Message(number, "train", COORDINATOR, EVERYONE, kind, name, None, payload)
                if self._wire.wants(number, kind):
                    self._wire.send(message)
                else:
                    self._wire.count(kind, message.nbytes * owners)

    def _update(self, learning: Sequence[_Copy]) -> None:
        """The coordinator updates stem and tail by the sum over all owners, hosts their slices."""
        tensors = [{n: t for p in c.owned.values() for n, t in p.items()} for c in self._copies]
        for name, tensor in self._owned.items():
            found = [grad for own in tensors if (grad := own[name].grad) is not None]
            tensor.grad = sum(found[1:], found[0]) if found else None
        self._optimizer.step()
        for copy in learning:
            copy.learn()
            self._seen[self._copies.index(copy)] += len(copy.rows)
        for copy, own in zip(self._copies, tensors, strict=True):
            copy.module.zero_grad()
            if copy is not self._copies[0]:
                for name, tensor in own.items():
                    tensor.detach().copy_(self._owned[name].detach())

    def _average(self, number: int) -> None:
        """Slices become the mean of all replicas', weighted by the rows seen since the last average."""
        weights = [seen / sum(self._seen) for seen in self._seen]
        self._seen = [0] * len(self._copies)
        if self._wire.wants(number, "slice_weights"):
            self._average_told(number, weights)
            return
        for name in self._copies[0].body:
            held = [copy.body[name].detach() for copy in self._copies]
            mean = _mean(held, weights)
            for tensor in held:
                tensor.copy_(mean)
        sent = sum(weight > 0 for weight in weights[1:])
        self._wire.count("slice_weights", (sent + len(weights) - 1) * self._tile_bytes)

    def _average_told(self, number: int, weights: Sequence[float]) -> None:
        """The same, tile by tile, with every message."""
        for parts in zip(*(list(self._parts(copy)) for copy in self._copies), strict=True):
            (first, name, _), *others = parts
            units = None if first.whole else first.units
            held = [part.clone() for _, _, part in parts]
            for place, (piece, _, _) in enumerate(others, start=1):
                if weights[place]:
                    message = Message(
                        number, "train", piece.party, first.party, "slice_weights", name, units,
                        held[place],
                    )  # fmt: skip
                    held[place] = self._wire.send(message).payload.to(held[place])
            mean = _mean(held, weights)
            _put(first, self._copies[0].tensors[first.layer][name].detach(), mean)
            for place, (piece, _, _) in enumerate(others, start=1):
                message = Message(
                    number, "train", first.party, piece.party, "slice_weights", name, units, mean
                )
                got = self._wire.send(message).payload.to(mean)
                _put(piece, self._copies[place].tensors[piece.layer][name].detach(), got)

    def _parts(self, copy: _Copy) -> Iterator[tuple[Slice, str, Tensor]]:
        """What each tile of a replica holds of each trained tensor."""
        for each in held_by(copy.pieces, copy.stages):
            if each.whole.requires_grad:
                yield each.piece, each.name, each.part


def _mean(held: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Weighted; replicas of no weight are left out, so that one alone is kept to the bit."""
    parts = [tensor * weight for tensor, weight in zip(held, weights, strict=True) if weight]
    return sum(parts[1:], parts[0])


def _put(piece: Slice, tensor: Tensor, part: Tensor) -> None:
    """The inverse of ``Slice.part``."""
    if piece.whole or tensor.ndim == 0:
        tensor.copy_(part)
    elif tensor.ndim < 2 or piece.columns is None:
        tensor[list(piece.units)] = part
    else:
        tensor[torch.tensor(piece.units)[:, None], torch.tensor(piece.columns)] = part
