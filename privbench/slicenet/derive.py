"""Messages that are worked out when somebody looks, not while training.

A host's part of a gradient or of a sum takes a convolution of its own and is as large as a whole map.
Where nobody may change such messages, the crowd lays by what they follow from, once for all hosts:
the gradient of each layer's map, and the parameters in force (ours).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn

from privbench.contract import Layer, Net, Party, Slice
from privbench.slicenet.graph import Graph, Operand, Stage, Strand
from privbench.slicenet.links import Links
from privbench.slicenet.ops import NOTHING
from privbench.slicenet.passes import added, covered, layer_part, partial_sum
from privbench.wire.router import Kept

PARTS: Party = "*parts"
"""Receiver of a message without numbers: each host's own is derived."""

MAP: Party = "*map"
"""Receiver of the gradient of a layer's map, laid by."""

FLOW: Party = "*flow"
"""Receiver of what one layer, the sender, adds to the gradient of another, laid by."""

_FLATTENS = ("flatten", "view", "reshape")


@dataclass(frozen=True)
class Plan:
    """What is derived.

    Args:
        sources: layers of which hosts' parts of the gradient are derived.
        maps: layers the gradient of whose map is laid by for it.
        flows: layers that have all that depends on what they work on, and the sources to which they
            add: what they add is laid by as it is.
        sums: layers whose partial sums are derived.
    """

    sources: frozenset[str] = frozenset()
    maps: frozenset[str] = frozenset()
    flows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sums: frozenset[str] = frozenset()

    @property
    def layers(self) -> frozenset[str]:
        """Those of which the parameters in force are needed."""
        return self.maps | self.sums


def plan_of(graph: Graph, links: Links) -> Plan:
    """What can be derived, and is worth it: a part that needs no arithmetic is sent at once."""
    plain = {s.layer.name for s in graph.placed("body") if _derivable(graph, s)}
    given = {
        (stage.layer.name, source): all(
            covered(stage, source, [piece]) for piece in links.slices(stage.layer.name)
        )
        for stage in graph.placed("body")
        for source in stage.layer.inputs
    }
    sources = set()
    for name in {source for _, source in given}:
        users = [user for user, source in given if source == name]
        ready = [user for user in users if given[user, name]]
        if len(ready) < len(users) and set(users) <= plain | set(ready):
            sources.add(name)
    flows: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for user, source in given:
        if source in sources and given[user, source]:
            flows[user] += (source,)
    maps = {user for user, source in given if source in sources and not given[user, source]}
    return Plan(
        frozenset(sources),
        frozenset(maps),
        dict(flows),
        frozenset(name for name in plain if links.sums(name)),
    )


def _derivable(graph: Graph, stage: Stage) -> bool:
    """A layer that finds its inputs side by side, at most flattened, and that a network has by name."""
    if stage.sort != "layer":
        return False
    modules = dict(graph.root.named_modules())
    (operand,) = stage.operands
    names = [strand.source for strand in operand.strands]
    linear = isinstance(stage.module, nn.Linear)
    return (
        modules.get(stage.layer.name) is stage.module
        and not (linear and len(stage.map_shape) > 1)
        and not operand.after.calls
        and names == list(stage.layer.inputs)
        and all(_flat(strand) if linear else not strand.piece.calls for strand in operand.strands)
    )


def _flat(strand: Strand) -> bool:
    """Is all that happens on the way a flatten?"""
    for call in strand.piece.calls:
        named = call.module is None and call.node.split("_")[0] in _FLATTENS
        if not named and type(call.module) is not nn.Flatten:
            return False
    return True


class Bare:
    """The layers of a network as far as they can be told from a topology: enough to derive parts.

    Args:
        net: of the topology; built when first needed.
        layers: of the topology.
    """

    def __init__(self, net: Net, layers: Sequence[Layer]) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self._net, self._root = net, nn.Module()
        self._stages: dict[str, Stage] = {}

    def stage(self, name: str, weight: Tensor) -> Stage:
        """A layer, with this weight until the next call."""
        if name not in self._stages:
            if not self._stages:
                self._root = self._net.module()
            layer, module = self.layers[name], self._root.get_submodule(name)
            operand = Operand(tuple(Strand(i, self.layers[i].channels) for i in layer.inputs))
            self._stages[name] = Stage(
                layer, "layer", (operand,), module, module, NOTHING, layer.map_shape, 0.0, {}
            )
        stage = self._stages[name]
        if stage.weight.data_ptr() != weight.data_ptr():
            module = self._root.get_submodule(name)
            module.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
        return stage


class Step:
    """Derives the messages of one recorded step.

    Args:
        bare: layers of the network.
        links: who hosts what in that step.
        kept: what was recorded of it.
    """

    def __init__(self, bare: Bare, links: Links, kept: Kept) -> None:
        self._bare, self._links, self._state = bare, links, kept.state
        floats = (t.dtype for t in kept.state.values() if t.is_floating_point())
        self._dtype = next(floats, torch.float32)
        self._values: dict[str, Tensor] = {}
        self._maps: dict[str, Tensor] = {}
        self._flows: dict[tuple[str, str], Tensor] = {}
        for message in kept.messages:
            if message.kind == "activation":
                self._values[message.layer] = self._whole(message.payload)
            elif message.kind == "gradient" and message.receiver == MAP:
                self._maps[message.layer] = self._whole(message.payload)
            elif message.kind == "gradient" and message.receiver == FLOW:
                self._flows[message.sender, message.layer] = self._whole(message.payload)

        laid = (m for m in kept.messages if m.kind in ("activation", "gradient"))
        self.half = self._dtype.itemsize > 2 and any(m.payload.element_size() == 2 for m in laid)

    def _whole(self, payload: Tensor) -> Tensor:
        """In the numbers that the network computes with, whatever the recording keeps."""
        return payload.to(self._dtype)

    def gradient(self, source: str, party: Party) -> Tensor:
        """A host's part of the gradient of a layer, ``(n, channels, ...)``."""
        parts: list[tuple[Tensor, Sequence[Slice]]] = []
        for layer in reversed(self._bare.layers.values()):
            hosted = self._links.hosted(party, layer.name) if source in layer.inputs else ()
            mine = [piece for piece in hosted if any(need.layer == source for need in piece.needs)]
            if mine and (layer.name, source) in self._flows:
                parts.append((self._flows[layer.name, source], mine))
            elif mine:
                parts.append((self._part(layer, source, mine), mine))
        return added(source, parts)

    def partial_sum(self, layer: str, party: Party, units: tuple[int, ...]) -> Tensor:
        """What a host adds to a block of a layer's map."""
        stage = self._stage(layer)
        values = [self._values[name].to(stage.weight) for name in stage.layer.inputs]
        if isinstance(stage.module, nn.Linear):
            values = [value.flatten(1) for value in values]
        opened = values[0] if len(values) == 1 else torch.cat(values, dim=1)
        pieces = [p for p in self._links.hosted(party, layer) if p.units == units]
        return partial_sum(stage, opened, pieces)

    def _part(self, layer: Layer, source: str, pieces: Sequence[Slice]) -> Tensor:
        stage, delta = self._stage(layer.name), self._maps[layer.name]
        shapes = [self._bare.layers[name].shape for name in layer.inputs]
        place = layer.inputs.index(source)
        linear = isinstance(stage.module, nn.Linear)
        widths = [prod(shape) if linear else shape[0] for shape in shapes]
        size = (len(delta), sum(widths), *(() if linear else shapes[place][1:]))
        found = layer_part(stage, torch.Size(size), pieces, delta)
        first = sum(widths[:place])
        return found[:, first : first + widths[place]].reshape(len(delta), *shapes[place])

    def _stage(self, name: str) -> Stage:
        return self._bare.stage(name, self._state[f"{name}.weight"])
