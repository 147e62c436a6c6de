"""What a seat saw of other people's samples, and what it would have seen of samples of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Block, Layer, Message, Topology, View, blocks, child_rng
from privbench.errors import NotApplicable

Rows = Int64[Tensor, "n 2"]
Found = TypeVar("Found")
_STEP = 1 << 32  # more rows than a step can have: (step, index) as one number


@dataclass(frozen=True, eq=False)
class Seen:
    """The part of one layer that a seat sees of some of its victims.

    Args:
        layer: the shallowest of which it sees them.
        kind: ``activation`` or ``partial_sum``.
        seen: every row, own ones too, of which it saw all units that it saw of these victims.
        victims: their places in ``view.victims``, in rising order.
    """

    layer: Layer
    kind: str
    seen: Block
    victims: Int64[Tensor, " victims"]

    def find(self, rows: Rows) -> Int64[Tensor, " n"]:
        """Place of each row in ``seen``; -1 = not seen."""
        return places(self.seen.rows, rows)

    def features(self, rows: Rows) -> Float[Tensor, "found features"]:
        """What was seen of those of ``rows`` that were seen, flattened."""
        at = self.find(rows)
        return self.seen.payload[at[at >= 0]].flatten(1)


def places(known: Int64[Tensor, "known 2"], rows: Rows) -> Int64[Tensor, " n"]:
    """Place of each of ``rows`` in ``known`` (sorted by step and index); -1 = not there."""
    if not len(known):
        return torch.full((len(rows),), -1, dtype=torch.int64)
    keys, asked = _key(known), _key(rows)
    at = torch.searchsorted(keys, asked).clamp(max=len(keys) - 1)
    return torch.where(keys[at] == asked, at, -1)


def seen_of_victims(
    view: View, kinds: Sequence[str] = ("activation", "partial_sum")
) -> tuple[Seen, ...]:
    """What the seat saw of each victim at the shallowest layer where it saw it.

    Victims of which it saw the same units of the same layer stand together. Other victims' units
    help with none of them, nor those that it saw of its own samples alone. Where it saw several
    partial sums of a unit they are added up.

    Returns:
        parts, shallowest layer first; each victim that was seen is in one of them.
    """
    left = torch.ones(len(view.victims), dtype=torch.bool)
    parts: list[Seen] = []
    for layer in view.topology.layers:
        for kind in kinds:
            messages = [m for m in view.messages if m.kind == kind and m.layer == layer.name]
            if not messages or not bool(left.any()):
                continue
            for found, sources in _sets(messages, layer, kind):
                here = left & (places(found[0].rows, view.victims) >= 0)
                if bool(here.any()):
                    places_here = here.nonzero().flatten()
                    whole = _summed(_joined(found), layer, sources)
                    parts.append(Seen(layer, kind, whole, places_here))
                    left &= ~here
    return tuple(parts)


def each_known(parts: Iterable[Seen], work: Callable[[Seen], Found]) -> list[tuple[Seen, Found]]:
    """What comes of each part for which the seat knows enough.

    Raises:
        NotApplicable: it knows enough for none of them.
    """
    found, refused = [], []
    for part in parts:
        try:
            found.append((part, work(part)))
        except NotApplicable as reason:
            refused.append(reason)
    if refused and not found:
        raise refused[0]
    return found


def _sets(
    messages: Sequence[Message], layer: Layer, kind: str
) -> Iterator[tuple[tuple[Block, ...], int]]:
    """Blocks of a layer, each with those after it that have all its units; and the number of sources.

    Partial sums of several senders are units of their own: unit u of sender number s is
    ``s * channels + u``.
    """
    sources = 1
    if kind == "partial_sum":
        senders = sorted({message.sender for message in messages})
        number = {sender: n for n, sender in enumerate(senders)}
        sources, messages = len(senders), [_spread(m, number[m.sender], layer) for m in messages]
    found = blocks(messages, replace(layer, channels=layer.channels * sources), kind)
    for each in found:
        units = set(each.units)
        more = (o for o in found if o is not each and units.issubset(o.units))
        yield (each, *more), sources


def _spread(message: Message, sender: int, layer: Layer) -> Message:
    held = message.units or range(layer.channels)
    return replace(message, units=tuple(sender * layer.channels + unit for unit in held))


def _joined(found: Sequence[Block]) -> Block:
    """The units of the first block, of the rows of all."""
    first = found[0]
    payloads = [first.payload]
    for other in found[1:]:
        column = {unit: i for i, unit in enumerate(other.units)}
        payloads.append(other.payload[:, [column[unit] for unit in first.units]])
    rows = torch.cat([each.rows for each in found])
    order = _key(rows).argsort()
    return replace(first, rows=rows[order], payload=torch.cat(payloads)[order])


def _summed(found: Block, layer: Layer, sources: int) -> Block:
    """The sum of what several senders add to a unit."""
    if sources == 1:
        return found
    held = torch.tensor(found.units) % layer.channels
    units, place = held.unique(return_inverse=True)
    shape = (len(found.rows), len(units), *found.payload.shape[2:])
    total = torch.zeros(shape).index_add_(1, place, found.payload)
    return replace(found, units=tuple(units.tolist()), payload=total)


def _key(rows: Rows) -> Int64[Tensor, " n"]:
    return rows[:, 0] * _STEP + rows[:, 1]


def defended(
    topology: Topology,
    layer: Layer,
    activation: Float[Tensor, "n channels ..."],
    step: int,
    rng: torch.Generator,
) -> Float[Tensor, "n channels ..."]:
    """A layer's whole output as the message defenses in force would let it out.

    An adaptive attacker knows the defenses (``topology.defenses``), not their randomness: here it
    comes from ``rng``.
    """
    message = Message(
        step=step,
        phase="train",
        sender="attacker",
        receiver="attacker",
        kind="activation",
        layer=layer.name,
        units=None,
        payload=activation,
        rows=torch.arange(len(activation)),
    )
    for number, spec in enumerate(topology.defenses):
        defense = spec.build()
        if message.kind in defense.kinds:
            message = defense.send(message, child_rng(rng, "defense", number))
    return message.payload


def selected(
    activation: Float[Tensor, "n channels ..."], units: Iterable[int]
) -> Float[Tensor, "n units ..."]:
    """Some units of a layer's whole output."""
    return activation[:, torch.tensor(tuple(units), dtype=torch.int64, device=activation.device)]
