"""Who sends which channels of a layer to whom: the links of a sliced network.

The rules (see ``Links``) stand here once; the router cuts messages by them, the problem counts
volume and memory by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from privbench.contract import Layer, Party, Slice

OWNER: Party = "(owner of the row)"
"""Stands for whoever owns a row: it runs stem and tail on its own rows."""


@dataclass(frozen=True)
class Link:
    """Channels of one layer that one party sends to another; gradients go back along it."""

    sender: Party
    receiver: Party
    units: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Channels of a layer and who makes or needs them."""

    party: Party
    units: tuple[int, ...]


class Links:
    """The links of a sliced chain.

    - A body layer cut along its *output* channels: each block's host computes it, and needs all
      channels of the layer before. Each block is sent once to each other device that needs it.
    - Cut along its *input* channels: each host gets only these channels and sends a partial sum of
      the whole map to the layer's *reducer*, the host of its first block, which adds the bias,
      applies the operations behind it and holds all channels. A device adds up its own blocks
      first, so that no device sends two sums of one layer (ours).
    - The owner of a row makes all stem channels and needs all channels of the last body layer.

    Nothing goes from a party to itself.

    Args:
        layers: in order of the forward pass.
        slices: blocks in order; their order inside a layer decides who reduces.
    """

    def __init__(self, layers: Sequence[Layer], slices: Sequence[Slice]) -> None:
        self.layers = tuple(layers)
        stem = [layer for layer in self.layers if layer.place == "stem"]
        body = [layer for layer in self.layers if layer.place == "body"]
        tail = [layer for layer in self.layers if layer.place == "tail"]
        self.travelling = (stem[-1], *body)
        self._slices = {layer.name: [s for s in slices if s.layer == layer.name] for layer in body}
        following = (*body, *tail)
        self._next = {
            layer.name: after for layer, after in zip(self.travelling, following, strict=True)
        }
        self._links = {layer.name: self._link(layer) for layer in self.travelling}

    def slices(self, layer: str) -> list[Slice]:
        """Blocks of a body layer."""
        return self._slices[layer]

    def tiled(self, layer: str) -> str | None:
        """``output`` or ``input`` for a body layer, None for stem and tail."""
        blocks = self._slices.get(layer)
        return blocks[0].side if blocks else None

    def following(self, layer: str) -> Layer:
        """The layer that a travelling one feeds."""
        return self._next[layer]

    def hosts(self, layer: str) -> tuple[Party, ...]:
        """Hosts of a body layer, each once, by their first block."""
        return tuple(dict.fromkeys(piece.party for piece in self._slices[layer]))

    def reducer(self, layer: str) -> Party:
        """Who adds up the partial sums of a layer cut along its input."""
        return self._slices[layer][0].party

    def consumers(self, layer: str) -> tuple[Part, ...]:
        """Who needs which channels of a travelling layer, each party once."""
        after = self._next[layer]
        source = next(each for each in self.travelling if each.name == layer)
        everything = tuple(range(source.channels))
        if after.place == "tail":
            return (Part(OWNER, everything),)
        if self.tiled(after.name) == "output":
            return tuple(Part(host, everything) for host in self.hosts(after.name))
        width = columns_per_channel(source, after)
        found: dict[Party, set[int]] = {}
        for piece in self._slices[after.name]:
            found.setdefault(piece.party, set()).update(unit // width for unit in piece.units)
        return tuple(Part(host, tuple(sorted(units))) for host, units in found.items())

    def producers(self, layer: str) -> tuple[Part, ...]:
        """Who makes which channels of a travelling layer, block by block."""
        source = next(each for each in self.travelling if each.name == layer)
        everything = tuple(range(source.channels))
        if source.place == "stem":
            return (Part(OWNER, everything),)
        if self.tiled(layer) == "input":
            return (Part(self.reducer(layer), everything),)
        return tuple(Part(piece.party, piece.units) for piece in self._slices[layer])

    def links(self, layer: str) -> tuple[Link, ...]:
        """Links of a travelling layer, in the direction of the forward pass."""
        return self._links[layer]

    def _link(self, layer: Layer) -> tuple[Link, ...]:
        found = []
        for made in self.producers(layer.name):
            for need in self.consumers(layer.name):
                wanted = set(need.units)
                units = tuple(unit for unit in made.units if unit in wanted)
                if units and made.party != need.party:
                    found.append(Link(made.party, need.party, units))
        return tuple(found)


def columns_per_channel(source: Layer, after: Layer) -> int:
    """Columns of the next layer's weight that one channel feeds: several, behind a flatten."""
    return prod(source.shape[1:]) if len(after.shape) == 1 and after.place != "stem" else 1
