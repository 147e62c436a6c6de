"""Two-party split learning: a client with the data, a server with the rest of the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import (
    Layer,
    Message,
    Net,
    Pairs,
    Samples,
    Slice,
    Topology,
    steps_per_epoch,
)
from privbench.data.population import Population
from privbench.errors import UsageError
from privbench.regimes.base import Regime, Trained, defenses_of, graph_of
from privbench.regimes.centralized import Centralized
from privbench.regimes.training import Loss, Training, training_flops
from privbench.slicenet.graph import Graph
from privbench.slicenet.trace import trace
from privbench.wire.wire import Wire

CLIENT, SERVER = "client", "split_server"


@dataclass(frozen=True, kw_only=True)
class Split(Regime):
    """One client runs the first layers, one server the others.

    P. Vepakomma, O. Gupta, T. Swedish, R. Raskar: Split learning for health: Distributed deep
    learning without sharing raw patient data, 2018, https://arxiv.org/abs/1812.00564.
    This is their simple configuration, with one client: labels go to the server with the
    activations. (In the U-shaped one the client keeps labels and the last layer.)

    It computes what centralized training computes, cut in two.

    Args:
        stem: number of layers, from the first, that the client runs.
    """

    name: ClassVar[str] = "split"

    stem: int = 1  # layers

    def train(
        self, net: Net, population: Population, wire: Wire, rng: torch.Generator, device: str
    ) -> Trained:
        """See ``Regime.train``.

        Raises:
            NotApplicable: the network cannot be cut in two.
        """
        if self.learning is not None:
            raise UsageError(
                "regime=split has no learning defense: whose gradients would be clipped, the "
                "client's or the server's? Leave regime.learning out, or use regime=dpsgd"
            )
        if self.clip is not None:
            raise UsageError(
                f"regime.clip={self.clip}: client and server of split learning each hold a part of the "
                "gradient, and tell nobody its norm; leave regime.clip out, or use regime=slicenet"
            )
        samples = population.train.to(device)
        recipe = self.recipe(net, len(samples))
        cut = _Cut(wire)
        training = Training(recipe, samples, rng, cut.backward)
        graph = graph_of(self.name, training.learner.module, samples.x.shape[1:], self.stem)
        topology = Topology(
            regime=self.name,
            parties=(CLIENT, SERVER),
            owners=(CLIENT,),
            net=replace(net, weights=None),
            steps=training.steps,
            steps_per_epoch=steps_per_epoch(recipe, len(samples)),
            layers=_layers(graph),
            slices=_slices(graph),
            defenses=defenses_of(wire),
        )
        wire.open(topology)
        visits = 0
        for step in training:
            population.note(step.number, step.positions)
            wire.begin(step.number, torch.zeros_like(step.positions))
            if wire.watches(step.number):
                wire.hold(step.number, training.learner.state())
            cut.begin(step.number, graph)
            visits += len(step.positions)
        return Trained(
            net=training.result(),
            recipe=recipe,
            trainer=self.trainer,
            topology=topology,
            bytes_per_sample=sum(wire.bytes.values()) / max(1, visits),
            flops_per_sample=training_flops(net, samples),
            losses=training.learner.curve.points(),
            passes=visits / len(samples),
        )

    def equivalent(self) -> Regime:
        """Centralized training with the same settings: the same numbers in the same order."""
        return Centralized.like(self)

    def query_pairs(
        self, trained: Trained, states: dict[int, dict[str, Tensor]], x: Float[Tensor, "n ..."]
    ) -> tuple[Pairs, ...]:
        """What the client's part gives for these inputs, at each step of which weights were kept."""
        module = trained.topology.net.module()
        graph = trace(module, x.shape[1:], self.stem)
        found = []
        for step, state in sorted(states.items()):
            module.load_state_dict(state)
            with torch.no_grad():
                values = graph.run(graph.placed("stem"), {"": x})
            found += [Pairs(step, name, x, values[name]) for name in _smashed(graph)]
        return tuple(found)


class _Cut:
    """A batch's forward and backward pass with two messages between them, and the labels' one."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._step = 0
        self._graph: Graph | None = None

    def begin(self, step: int, graph: Graph) -> None:
        """The next pass belongs to this step."""
        self._step, self._graph = step, graph

    def backward(self, net: nn.Module, batch: Samples, loss: Loss) -> Tensor:
        """Leave the gradients of both parts in their parameters."""
        graph = cast(Graph, self._graph)
        own = graph.run(graph.placed("stem"), {"": batch.x})
        names = _smashed(graph)
        received = {
            name: self._send(
                CLIENT, SERVER, "activation", name, own[name].detach()
            ).requires_grad_()
            for name in names
        }
        labels = self._send(CLIENT, SERVER, "labels", names[-1], _labels(batch))
        server = (*graph.placed("body"), *graph.placed("tail"))
        found = loss(graph.result(graph.run(server, received)), labels)
        found.backward()
        slopes = []
        for name in names:
            value = received[name]
            slope = torch.zeros_like(value) if value.grad is None else value.grad
            slopes.append(self._send(SERVER, CLIENT, "gradient", name, slope))
        torch.autograd.backward([own[name] for name in names], slopes)
        return found.detach()

    def _send(self, sender: str, receiver: str, kind: str, layer: str, payload: Tensor) -> Tensor:
        rows = torch.arange(len(payload))
        message = Message(self._step, "train", sender, receiver, kind, layer, None, payload, rows)
        return self._wire.send(message).payload.detach()


def _labels(batch: Samples) -> Tensor:
    if batch.y is None:
        raise UsageError("split learning sends labels to its server, and these records have none")
    return batch.y


def _smashed(graph: Graph) -> tuple[str, ...]:
    """Layers of the client that the server needs (split learning's "smashed data")."""
    stem = {stage.layer.name for stage in graph.placed("stem")}
    server = (*graph.placed("body"), *graph.placed("tail"))
    return tuple(dict.fromkeys(n for stage in server for n in stage.layer.inputs if n in stem))


def _layers(graph: Graph) -> tuple[Layer, ...]:
    """The client's layers are the stem; all that the server holds is body."""
    return tuple(
        layer if layer.place == "stem" else replace(layer, place="body") for layer in graph.layers
    )


def _slices(graph: Graph) -> tuple[Slice, ...]:
    """The server holds its layers whole."""
    held = [layer for layer in graph.layers if layer.place != "stem"]
    return tuple(
        Slice(SERVER, layer.name, tuple(range(layer.channels)), whole=True) for layer in held
    )
