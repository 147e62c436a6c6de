"""The messages of a step by size, in order of sending, and which of them are lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from privbench.contract import HEADER_BYTES, Party
from privbench.slicenet.links import OWNER, Links
from privbench.slicenet.places import LABEL_BYTES

BROADCASTS = ("stem_weights", "tail_weights")
ANSWERS = ("tail_gradient", "stem_gradient")


@dataclass(frozen=True)
class Wave:
    """Messages that are sent together: of one layer, one way.

    Args:
        kind: of the messages.
        layer: of which they are; empty for tensors of stem and tail.
        sizes: bytes with header, and how many messages have that size, smallest first.
    """

    kind: str
    layer: str
    sizes: tuple[tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all messages, each sent once."""
        return sum(size * count for size, count in self.sizes)


@dataclass(frozen=True)
class Missed:
    """What was lost of a wave.

    Args:
        messages: sent and not received, repetitions included.
        resent: bytes of repetitions.
        rounds: repetitions of the most unlucky message.
        largest: bytes of the largest message that was sent again.
        failed: was a message lost as often as it may be sent?
    """

    messages: int = 0
    resent: int = 0
    rounds: int = 0
    largest: int = 0
    failed: bool = False


def waves(
    links: Links,
    order: Sequence[str],
    rows: Mapping[Party, int],
    element: int,
    owned: Mapping[str, Sequence[int]],
) -> tuple[Wave, ...]:
    """All messages of a training step; those between a device and itself are none.

    Args:
        order: names of layers, in order of the forward pass.
        rows: of each owner of the batch.
        element: bytes a number.
        owned: bytes of each tensor of ``stem`` and ``tail``.
    """
    found = [_tensors(kind, rows, owned) for kind in BROADCASTS]
    there = {name: _sizes(links, name, rows, element) for name in order}
    sums = {name: _sums(links, name, sum(rows.values()), element) for name in order}
    for name in order:
        found += [_wave("partial_sum", name, sums[name]), _wave("activation", name, there[name])]
    found.append(_labels(links, rows))
    for name in reversed(order):
        found.append(_wave("gradient", name, there[name] + sums[name]))
    found += [_tensors(kind, rows, owned) for kind in ANSWERS]
    return tuple(wave for wave in found if wave.sizes)


def missed(wave: Wave, rate: float, retries: int | None, rng: torch.Generator) -> Missed:
    """Draw which messages of a wave are lost, each with the same probability, and sent again.

    Args:
        retries: None = until it arrives.
    """
    lost = resent = rounds = largest = 0
    left = torch.tensor([count for _, count in wave.sizes], dtype=torch.float64)
    sizes = torch.tensor([size for size, _ in wave.sizes])
    while True:
        left = torch.binomial(left, torch.full_like(left, rate), generator=rng)
        gone = left.to(torch.int64)
        lost += int(gone.sum())
        if not bool(gone.any()):
            return Missed(lost, resent, rounds, largest)
        if rounds == retries:
            return Missed(lost, resent, rounds, largest, failed=True)
        rounds += 1
        resent += int((gone * sizes).sum())
        largest = max(largest, int(sizes[gone > 0].max()))


def _wave(kind: str, layer: str, sizes: Counter[int]) -> Wave:
    return Wave(kind, layer, tuple(sorted((s, n) for s, n in sizes.items() if n)))


def _tensors(kind: str, rows: Mapping[Party, int], owned: Mapping[str, Sequence[int]]) -> Wave:
    """One message an owner and tensor of stem or tail."""
    place, _, _ = kind.partition("_")
    sizes: Counter[int] = Counter()
    for nbytes in owned[place]:
        sizes[nbytes + HEADER_BYTES] += len(rows)
    return _wave(kind, "", sizes)


def _labels(links: Links, rows: Mapping[Party, int]) -> Wave:
    """One message an owner, to whoever computes the loss, where that is a host."""
    sizes: Counter[int] = Counter()
    for owner, count in rows.items() if links.scorer is not None else ():
        if owner != links.scorer:
            sizes[count * LABEL_BYTES + HEADER_BYTES] += 1
    return _wave("labels", links.last, sizes)


def _sums(links: Links, name: str, rows: int, element: int) -> Counter[int]:
    """Partial sums of a layer; the gradients that answer them are as large."""
    sizes: Counter[int] = Counter()
    for each in links.sums(name):
        numbers = len(each.units) * prod(links.layers[name].map_shape[1:])
        sizes[rows * numbers * element + HEADER_BYTES] += len(each.others)
    return sizes


def _sizes(links: Links, name: str, rows: Mapping[Party, int], element: int) -> Counter[int]:
    """Messages that carry channels of a layer; their gradients are as many and as large."""
    layer, sizes = links.layers[name], Counter[int]()
    number, batch = prod(layer.shape[1:]) * element, sum(rows.values())

    def add(count: int, units: tuple[int, ...] | None, times: int = 1) -> None:
        wide = layer.channels if units is None else len(units)
        sizes[count * wide * number + HEADER_BYTES] += times

    everything = {need.party for need in links.consumers(name) if need.units is None} - {OWNER}
    for made in links.makers(name):
        if made.party != OWNER:
            add(batch, made.units, len(everything) - (made.party in everything))
    for need in links.consumers(name):
        if need.party in everything and layer.place != "stem":
            continue
        for link in links.links(name, need.party):
            if OWNER not in (link.sender, link.receiver):
                add(batch, link.units)
                continue
            for owner, count in rows.items():
                if owner not in (link.sender, link.receiver):
                    add(count, link.units)
    return sizes
