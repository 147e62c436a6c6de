"""Who sends which channels of a layer to whom: the links of a sliced network.

The rules stand here once; the router cuts messages by them, the tally counts bytes by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from privbench.contract import Layer, Party, Slice

OWNER: Party = "(owner of the row)"
"""Stands for whoever owns a row: it runs stem and tail on its own rows."""


@dataclass(frozen=True)
class Part:
    """Channels of a layer and who makes or needs them; ``units`` None = all."""

    party: Party
    units: tuple[int, ...] | None


@dataclass(frozen=True)
class Link:
    """Channels of one layer that one party sends to another; gradients go back along it."""

    sender: Party
    receiver: Party
    units: tuple[int, ...] | None


@dataclass(frozen=True)
class Sum:
    """A block of channels that several devices add up.

    Args:
        units: of the block.
        reducer: who finishes it.
        others: who sends a partial sum to it; a device adds up its own first, so each sends one.
    """

    units: tuple[int, ...]
    reducer: Party
    others: tuple[Party, ...]


class Links:
    """The links of a sliced network.

    - Each block of a layer that travels is sent once to each other device that hosts a slice which
      needs some of it, and only the channels that are needed there.
    - The owner of a row makes all stem channels, and needs all channels that the tail works on.
    - Where the weights of a block are spread by their columns, each host sends a partial sum to the
      block's reducer, and gets the gradient of the sum back.

    Nothing goes from a party to itself.

    Args:
        layers: in order of the forward pass.
        slices: tiles in order; the first tile of a block belongs to its reducer.
    """

    def __init__(self, layers: Sequence[Layer], slices: Sequence[Slice]) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self.pieces = tuple(slices)
        self._slices: dict[str, list[Slice]] = {name: [] for name in self.layers}
        needed: dict[str, dict[Party, set[int] | None]] = {name: {} for name in self.layers}
        for piece in slices:
            self._slices[piece.layer].append(piece)
            for need in piece.needs:
                mine = needed[need.layer]
                known = mine.get(piece.party, set())
                both = known is not None and need.units is not None
                mine[piece.party] = {*known, *need.units} if both else None  # type: ignore[misc]
        self._consumers = {
            name: tuple(
                Part(party, None if units is None else tuple(sorted(units)))
                for party, units in found.items()
            )
            for name, found in needed.items()
        }
        for layer in layers:
            if layer.place == "tail":
                for name in layer.inputs:
                    if self.layers[name].place == "body":
                        self._consumers[name] += (Part(OWNER, None),)

    @property
    def travelling(self) -> tuple[Layer, ...]:
        """Layers of which channels are sent, in order of the forward pass."""
        return tuple(layer for name, layer in self.layers.items() if self._consumers[name])

    def slices(self, layer: str) -> list[Slice]:
        """Tiles of a body layer."""
        return self._slices[layer]

    def consumers(self, layer: str) -> tuple[Part, ...]:
        """Who needs which channels of a layer, each party once."""
        return self._consumers[layer]

    def makers(self, layer: str) -> tuple[Part, ...]:
        """Who makes which channels of a layer, block by block."""
        if self.layers[layer].place == "stem":
            return (Part(OWNER, None),)
        return tuple(Part(s.party, s.units) for s in self._slices[layer] if s.reduces)

    def links(self, layer: str, receiver: Party | None = None) -> Iterator[Link]:
        """Links of a layer, in the direction of the forward pass; of one receiver where one is named."""
        makers = self.makers(layer)
        for need in self._consumers[layer]:
            if receiver not in (None, need.party):
                continue
            wanted = None if need.units is None else set(need.units)
            for made in makers:
                units = _common(made.units, need.units, wanted)
                if units != () and made.party != need.party:
                    yield Link(made.party, need.party, units)

    def sums(self, layer: str) -> tuple[Sum, ...]:
        """Blocks of a layer that more than one device adds up."""
        blocks: dict[tuple[int, ...], dict[Party, None]] = {}
        for piece in self._slices[layer]:
            blocks.setdefault(piece.units, {})[piece.party] = None
        return tuple(
            Sum(units, *_first(list(parties)))
            for units, parties in blocks.items()
            if len(parties) > 1
        )


def _first(parties: list[Party]) -> tuple[Party, tuple[Party, ...]]:
    return parties[0], tuple(parties[1:])


def _common(
    made: tuple[int, ...] | None, need: tuple[int, ...] | None, wanted: set[int] | None
) -> tuple[int, ...] | None:
    """Channels in both; None = all."""
    if made is None:
        return need
    if wanted is None:
        return made
    return tuple(unit for unit in made if unit in wanted)
