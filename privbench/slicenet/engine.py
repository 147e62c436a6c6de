"""The simulated crowd: layers run whole in one process, messages are views of what they compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from privbench.contract import HEADER_BYTES, Message, Party, Samples, Slice, Topology, no_rows
from privbench.slicenet.graph import Graph, Stage
from privbench.slicenet.links import Links
from privbench.slicenet.passes import Pass, forward, of_rows, partial_sum, replaced
from privbench.slicenet.router import CrowdRouter
from privbench.wire.router import EVERYONE
from privbench.wire.wire import Wire

COORDINATOR: Party = "coordinator"
RELEASER: Party = "releaser"


class Simulated:
    """Trains a sliced network step by step, and says what devices would have sent.

    Parameters end bit-equal to centralized training's on the same batches, whoever listens: what
    devices compute in parts is computed for the messages alone, and takes the place of the whole
    only where a defense or an actor changed a message. The parts add up to the whole to rounding.

    Args:
        module: the network; trained in place.
        graph: its chain.
        topology: with layers and slices; device k is ``owners[k]``.
        wire: not yet opened.
        optimizer: element-wise, over all parameters of ``module``.
        loss: name in ``torch.nn.functional``, the mean over rows.
        noise_seed: random layers draw from ``noise_seed + step``, as in centralized training.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: Graph,
        topology: Topology,
        wire: Wire,
        optimizer: Optimizer,
        loss: str,
        noise_seed: int,
    ) -> None:
        self._module, self._graph, self._topology = module, graph, topology
        self._wire, self._optimizer, self._noise_seed = wire, optimizer, noise_seed
        self._loss = getattr(F, loss)
        self._links = Links(topology.layers, topology.slices)
        self._router = CrowdRouter(topology)
        self._parameters = dict(module.named_parameters())
        self._step = 0
        self._rows = no_rows()
        self._present: dict[Party, Int64[Tensor, " rows"]] = {}
        wire.open(topology, self._router)

    def step(self, number: int, batch: Samples, owners: Int64[Tensor, " rows"]) -> None:
        """One training step on the mean loss of a batch.

        Args:
            number: from 0; before the first, hosts get their slices, after the last
                (``topology.steps``) they hand them in.
            batch: labelled rows, where the module is.
            owners: number of each row's owner, on the CPU.
        """
        self._begin(number, owners)
        with _seeded(self._noise_seed + number, batch.x.device):
            done = self._forward(batch.x)
        logits = done[-1].out
        loss = self._loss(logits, batch.y)
        self._backward(done, torch.autograd.grad(loss, logits, retain_graph=True)[0])
        self._optimizer.step()
        self._optimizer.zero_grad()
        if number == self._topology.steps - 1:
            self._move_slices(to_hosts=False)

    def _begin(self, number: int, owners: Int64[Tensor, " rows"]) -> None:
        self._step, self._rows = number, torch.arange(len(owners))
        names = self._topology.owners
        self._present = {
            names[k]: (owners == k).nonzero().flatten() for k in torch.unique(owners).tolist()
        }
        self._wire.begin(number, owners)
        if number == 0:
            self._move_slices(to_hosts=True)
        if self._wire.wants(number, "slice_weights"):
            self._wire.hold(number, self._module.state_dict())
        for place in ("stem", "tail"):
            for name in self._names(place):
                self._broadcast(f"{place}_weights", name)

    def _forward(self, x: Tensor) -> list[Pass]:
        done: list[Pass] = []
        value = x
        for stage in self._graph.stages:
            ran = forward(stage, value)
            if self._links.tiled(stage.layer.name) == "input":
                ran = self._reduced(ran)
            done.append(ran)
            value = ran.out.detach()
            if stage.layer in self._links.travelling:
                sent = self._whole("activation", stage.layer.name, value)
                value = self._send(sent).payload.to(value)
            value = value.detach().requires_grad_()
        return done

    def _reduced(self, ran: Pass) -> Pass:
        """Partial sums of a layer that is cut along its input, sent to its reducer."""
        layer = ran.stage.layer
        reducer = self._links.reducer(layer.name)
        others = [host for host in self._links.hosts(layer.name) if host != reducer]
        if not self._wire.wants(self._step, "partial_sum"):
            each = _size(ran.mapped) + HEADER_BYTES
            self._wire.count("partial_sum", each * len(others))
            return ran
        total = partial_sum(ran.stage, ran.opened, self._units(layer.name, reducer))
        changed = False
        for host in others:
            part = partial_sum(ran.stage, ran.opened, self._units(layer.name, host))
            sent = self._message("partial_sum", layer.name, part, host, reducer)
            got = self._wire.send(sent)
            changed = changed or got.payload is not part
            total = total + got.payload.to(total)
        if not changed:
            return ran
        if ran.stage.module.bias is not None:
            bias = ran.stage.module.get_parameter("bias").detach()
            total = total + bias.reshape(-1, *[1] * (total.ndim - 2))
        return replaced(ran, total)

    def _backward(self, done: list[Pass], gradient: Tensor) -> None:
        """From the gradient of the logits to every parameter's."""
        stem: list[tuple[Pass, Tensor]] = []
        for ran in reversed(done):
            layer = ran.stage.layer
            delta = ran.map_gradient(gradient)
            if self._links.tiled(layer.name) == "input":
                delta = self._to_hosts(layer.name, delta)
            flow, found = ran.all_gradients(delta)
            for parameter, value in zip(ran.stage.module.parameters(), found, strict=True):
                parameter.grad = value
            if layer.place == "tail":
                self._owners_send("tail_gradient", [(ran, gradient)])
            elif layer.place == "stem":
                stem.append((ran, gradient))
            if flow is not None:
                gradient = self._back(ran, delta, flow)
        self._owners_send("stem_gradient", stem)

    def _to_hosts(self, layer: str, delta: Tensor) -> Tensor:
        """A reducer tells the other hosts the gradient of the map that they computed together."""
        sent = self._message("gradient", layer, delta, self._links.reducer(layer), EVERYONE)
        return self._send(sent).payload.to(delta)

    def _back(self, ran: Pass, delta: Tensor, flow: Tensor) -> Tensor:
        """Send the gradient of what travelled into a stage; what arrives goes on."""
        (before,) = ran.stage.layer.inputs
        if before not in [layer.name for layer in self._links.travelling]:
            return flow
        if self._links.tiled(ran.stage.layer.name) != "output":
            return self._send(self._whole("gradient", before, flow)).payload.to(flow)
        hosts = self._links.hosts(ran.stage.layer.name)
        if not self._wire.wants(self._step, "gradient"):
            for host in hosts:  # each sends a part of the same size as the whole
                like = self._message("gradient", before, flow, host, EVERYONE)
                self._wire.count("gradient", self._router.nbytes(like))
            return flow
        parts, changed = [], False
        for host in hosts:
            units = self._units(ran.stage.layer.name, host)
            part = flow if len(hosts) == 1 else ran.entry_gradient(delta, units)
            got = self._wire.send(self._message("gradient", before, part, host, EVERYONE))
            changed = changed or got.payload is not part
            parts.append(got.payload.to(flow))
        return sum(parts[1:], parts[0]) if changed else flow

    def _owners_send(self, kind: str, passes: Sequence[tuple[Pass, Tensor]]) -> None:
        """Each owner sends the gradient of its own rows, one message a parameter tensor.

        Args:
            passes: from last to first, each with the gradient of what leaves it.
        """
        place = kind.removesuffix("_gradient")
        names = self._names(place)
        if not self._wire.wants(self._step, kind):
            each = sum(_size(self._parameters[name]) + HEADER_BYTES for name in names)
            self._wire.count(kind, each * len(self._present))
            return
        totals: dict[str, Tensor] = {}
        changed = False
        for owner, rows in self._present.items():
            for ran, gradient in passes:
                found = ran.all_gradients(ran.map_gradient(of_rows(gradient, rows)))[1]
                for name, value in zip(ran.stage.layer.parameters, found, strict=True):
                    message = Message(
                        self._step, "train", owner, COORDINATOR, kind, name, None, value, rows
                    )
                    got = self._wire.send(message)
                    changed = changed or got.payload is not value
                    arrived = got.payload.to(value)
                    totals[name] = totals[name] + arrived if name in totals else arrived
        for name, total in totals.items() if changed else ():
            self._parameters[name].grad = total

    def _broadcast(self, kind: str, name: str) -> None:
        """The stem or tail in force, to the owners of this step's rows."""
        parameter = self._parameters[name].detach()
        if self._wire.wants(self._step, kind):
            self._tensor(kind, name, parameter.clone(), COORDINATOR, EVERYONE)
        else:
            each = _size(parameter) + HEADER_BYTES
            self._wire.count(kind, each * len(self._present))

    def _move_slices(self, to_hosts: bool) -> None:
        """Slices (and stem and tail, with the coordinator) from the releaser, or to it."""
        moved: list[tuple[Party, str, tuple[int, ...] | None, Tensor]] = []
        for place in ("stem", "tail"):
            for name in self._names(place):
                moved.append((COORDINATOR, name, None, self._parameters[name].detach()))
        for piece in self._topology.slices:
            first = self._links.slices(piece.layer)[0] is piece
            for name in self._topology.layer(piece.layer).parameters:
                held = slice_of(self._parameters[name].detach(), piece, first)
                if held is not None:
                    units = None if held.ndim == 1 and piece.side == "input" else piece.units
                    moved.append((piece.party, name, units, held))
        wanted = self._wire.wants(self._step, "slice_weights")
        for party, name, units, held in moved:
            ends = (RELEASER, party) if to_hosts else (party, RELEASER)
            if wanted:
                self._tensor("slice_weights", name, held.clone(), *ends, units)
            else:
                self._wire.count("slice_weights", _size(held) + HEADER_BYTES)

    def _tensor(
        self,
        kind: str,
        name: str,
        payload: Tensor,
        sender: Party,
        receiver: Party,
        units: tuple[int, ...] | None = None,
    ) -> None:
        self._wire.send(Message(self._step, "train", sender, receiver, kind, name, units, payload))

    def _whole(self, kind: str, layer: str, payload: Tensor) -> Message:
        return self._message(kind, layer, payload, EVERYONE, EVERYONE)

    def _message(
        self, kind: str, layer: str, payload: Tensor, sender: Party, receiver: Party
    ) -> Message:
        units = tuple(range(self._topology.layer(layer).channels))
        return Message(
            self._step, "train", sender, receiver, kind, layer, units, payload, self._rows
        )

    def _send(self, message: Message) -> Message:
        return self._wire.send(message)

    def _units(self, layer: str, host: Party) -> list[int]:
        """Units of a layer that a device hosts, in all its blocks."""
        blocks = [piece for piece in self._links.slices(layer) if piece.party == host]
        return [unit for piece in blocks for unit in piece.units]

    def _names(self, place: str) -> list[str]:
        """Parameters of stem or tail."""
        stages: tuple[Stage, ...] = self._graph.placed(place)
        return [name for stage in stages for name in stage.layer.parameters]


def slice_of(tensor: Tensor, piece: Slice, first: bool) -> Tensor | None:
    """A host's part of one parameter; None = it holds none of it.

    Under input tiling the host of the layer's ``first`` block, who reduces, holds the bias.
    """
    if piece.side == "output":
        return tensor[list(piece.units)]
    if tensor.ndim > 1:
        return tensor[:, list(piece.units)]
    return tensor if first else None


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random layers draw from the global generators: lend them a seed, and give them back."""
    on_cuda: list[Any] = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=on_cuda):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed(seed)
        yield
