"""Bytes of a step without its messages: what all links of a sliced network carry, counted once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from privbench.contract import HEADER_BYTES, Party
from privbench.slicenet.links import OWNER, Links
from privbench.slicenet.places import LABEL_BYTES


@dataclass(frozen=True)
class Count:
    """Numbers a row, and messages."""

    numbers: int = 0
    messages: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.numbers + other.numbers, self.messages + other.messages)

    def __sub__(self, other: Count) -> Count:
        return Count(self.numbers - other.numbers, self.messages - other.messages)

    def nbytes(self, rows: int, element: int) -> int:
        """Bytes with ``rows`` rows of ``element`` bytes a number."""
        return rows * self.numbers * element + self.messages * HEADER_BYTES


class Tally:
    """What one direction of a layer's links carries in a step.

    Counting takes a look at each owner of the batch, however many devices there are.

    Args:
        links: of the sliced network.
    """

    def __init__(self, links: Links) -> None:
        self._scorer = links.scorer
        self._layers = [layer.name for layer in links.travelling]
        self._between: dict[str, Count] = {}
        self._owners: dict[str, Count] = {}
        self._own: dict[str, Mapping[Party, Count]] = {}
        self._sums: dict[str, Count] = {}
        for name in links.layers:
            self._sums[name] = _sums(links, name)
        for name in self._layers:
            self._between[name], self._owners[name], self._own[name] = _counted(links, name)

    def layer(self, name: str, rows: Mapping[Party, int], element: int) -> int:
        """Bytes of a layer's channels on all their links, one way.

        Args:
            rows: of each owner of the batch.
            element: bytes a number.
        """
        if name not in self._between:
            return 0
        between = self._between[name].nbytes(sum(rows.values()), element)
        return between + self.owners(name, rows, element)

    def owners(self, name: str, rows: Mapping[Party, int], element: int) -> int:
        """The same on links that begin or end at owners of rows."""
        if name not in self._owners or not self._owners[name].messages:
            return 0
        total = 0
        for owner, count in rows.items():
            crossing = self._owners[name] - self._own[name].get(owner, Count())
            total += crossing.nbytes(count, element)
        return total

    def sums(self, name: str, rows: int, element: int) -> int:
        """Bytes of a layer's partial sums, or of the gradients that answer them."""
        return self._sums[name].nbytes(rows, element)

    def labels(self, rows: Mapping[Party, int]) -> int:
        """Bytes of labels that owners send to whoever computes the loss."""
        if self._scorer is None:
            return 0
        others = [count for owner, count in rows.items() if owner != self._scorer]
        return sum(others) * LABEL_BYTES + len(others) * HEADER_BYTES

    def forward(self, rows: Mapping[Party, int], element: int) -> int:
        """Bytes of all activations of a step; their gradients take as many."""
        return sum(self.layer(name, rows, element) for name in self._layers)

    def partial(self, rows: int, element: int) -> int:
        """Bytes of all partial sums of a step; the gradients that answer them take as many."""
        return sum((self._sums[name] for name in self._sums), Count()).nbytes(rows, element)


def _sums(links: Links, name: str) -> Count:
    size = prod(links.layers[name].map_shape[1:])
    found = links.sums(name)
    numbers = sum(len(each.units) * len(each.others) for each in found) * size
    return Count(numbers, sum(len(each.others) for each in found))


def _counted(links: Links, name: str) -> tuple[Count, Count, Mapping[Party, Count]]:
    """Between devices, between owners and devices as if no owner were a device, and what is spared."""
    layer = links.layers[name]
    size = prod(layer.shape[1:])
    makers, consumers = links.makers(name), links.consumers(name)
    if layer.place == "stem":
        own = {
            need.party: Count((layer.channels if need.units is None else len(need.units)) * size, 1)
            for need in consumers
        }
        return Count(), sum(own.values(), Count()), own
    made: dict[Party, Count] = defaultdict(Count)
    for part in makers:
        made[part.party] += Count(len(part.units or ()) * size, 1)
    everything = sum(made.values(), Count())
    maker_of = links.maker_of(name)
    between, owners = Count(), Count()
    for need in consumers:
        if need.party == OWNER:
            owners = everything
        elif need.units is None:
            between += everything - made.get(need.party, Count())
        else:
            foreign = [u for u in need.units if makers[maker_of[u]].party != need.party]
            between += Count(len(foreign) * size, len({maker_of[unit] for unit in foreign}))
    return between, owners, made if owners.messages else {}
