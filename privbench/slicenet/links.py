"""Who sends which channels of a layer to whom: the links of a sliced network.

The rules stand here once; the router cuts messages by them, the tally counts bytes by them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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
    - Where the last layer is hosted (it gives on the network's answer and is never cut), owners send
      its host the labels of their rows.

    Nothing goes from a party to itself.

    Args:
        layers: in order of the forward pass.
        slices: tiles in order; the first tile of a block belongs to its reducer.
    """

    def __init__(self, layers: Sequence[Layer], slices: Sequence[Slice]) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self.pieces = tuple(slices)
        self._slices: dict[str, list[Slice]] = {name: [] for name in self.layers}
        self._hosted: dict[tuple[Party, str], list[Slice]] = {}
        needed: dict[str, dict[Party, set[int] | None]] = {name: {} for name in self.layers}
        for piece in slices:
            self._slices[piece.layer].append(piece)
            self._hosted.setdefault((piece.party, piece.layer), []).append(piece)
            for need in piece.needs:
                mine = needed[need.layer]
                known = mine.setdefault(piece.party, set())
                if known is not None and need.units is not None:
                    known.update(need.units)
                else:
                    mine[piece.party] = None
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
                        others = [p for p in self._consumers[name] if p.party != OWNER]
                        self._consumers[name] = (*others, Part(OWNER, None))
        self._needs = {name: {p.party: p for p in parts} for name, parts in self._consumers.items()}
        self._makers = {name: self._made(layer) for name, layer in self.layers.items()}
        self._maker_of = {
            name: {unit: place for place, part in enumerate(parts) for unit in part.units or ()}
            for name, parts in self._makers.items()
        }
        self._sums = {name: _added_up(pieces) for name, pieces in self._slices.items()}
        self.last = layers[-1].name if layers else ""

    @property
    def scorer(self) -> Party | None:
        """Who computes the loss, and so is sent labels: the host of the last layer; None = owners do."""
        pieces = self._slices.get(self.last, ())
        return pieces[0].party if pieces else None

    @property
    def travelling(self) -> tuple[Layer, ...]:
        """Layers of which channels are sent, in order of the forward pass."""
        return tuple(layer for name, layer in self.layers.items() if self._consumers[name])

    def slices(self, layer: str) -> list[Slice]:
        """Tiles of a body layer."""
        return self._slices[layer]

    def hosted(self, party: Party, layer: str) -> Sequence[Slice]:
        """Tiles of a layer that a party hosts."""
        return self._hosted.get((party, layer), ())

    def consumers(self, layer: str) -> tuple[Part, ...]:
        """Who needs which channels of a layer, each party once."""
        return self._consumers[layer]

    def makers(self, layer: str) -> tuple[Part, ...]:
        """Who makes which channels of a layer, block by block."""
        return self._makers[layer]

    def maker_of(self, layer: str) -> Mapping[int, int]:
        """For each channel of a body layer the place of its maker among ``makers``."""
        return self._maker_of[layer]

    def links(
        self, layer: str, receiver: Party | None = None, near: Collection[Party] | None = None
    ) -> Iterator[Link]:
        """Links of a layer, in the direction of the forward pass.

        Args:
            receiver: only those to this party; None = to all.
            near: only those that begin or end at one of these parties; None = all.
        """
        makers = list(enumerate(self._makers[layer]))
        few = [(n, made) for n, made in makers if near is None or made.party in near]
        needs = self._consumers[layer]
        if receiver is not None:
            needs = (self._needs[layer][receiver],) if receiver in self._needs[layer] else ()
        for need in needs:
            chosen = makers if near is None or need.party in near else few
            if need.units is None or self.layers[layer].place == "stem":
                for _, made in chosen:
                    if made.party != need.party:
                        units = made.units if need.units is None else need.units
                        yield Link(made.party, need.party, units)
            elif chosen:
                yield from self._some(layer, need, dict(chosen))

    def _some(self, layer: str, need: Part, makers: Mapping[int, Part]) -> Iterator[Link]:
        """Links to a party that needs some channels alone."""
        found: dict[int, list[int]] = {}
        for unit in need.units or ():
            found.setdefault(self._maker_of[layer][unit], []).append(unit)
        for place in sorted(found):
            if place in makers and makers[place].party != need.party:
                yield Link(makers[place].party, need.party, tuple(found[place]))

    def sums(self, layer: str) -> tuple[Sum, ...]:
        """Blocks of a layer that more than one device adds up."""
        return self._sums[layer]

    def _made(self, layer: Layer) -> tuple[Part, ...]:
        if layer.place == "stem":
            return (Part(OWNER, None),)
        return tuple(Part(s.party, s.units) for s in self._slices[layer.name] if s.reduces)


def _added_up(pieces: Sequence[Slice]) -> tuple[Sum, ...]:
    blocks: dict[tuple[int, ...], dict[Party, None]] = {}
    for piece in pieces:
        blocks.setdefault(piece.units, {})[piece.party] = None
    return tuple(
        Sum(units, *_first(list(parties))) for units, parties in blocks.items() if len(parties) > 1
    )


def _first(parties: list[Party]) -> tuple[Party, tuple[Party, ...]]:
    return parties[0], tuple(parties[1:])
