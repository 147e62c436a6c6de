"""What a seat saw of other people's samples, and what it would have seen of samples of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Block, Layer, Message, Topology, View, block, child_rng

Rows = Int64[Tensor, "n 2"]
_STEP = 1 << 32  # more rows than a step can have: (step, index) as one number


@dataclass(frozen=True, eq=False)
class Seen:
    """The part of one layer that a seat sees of its victims.

    Args:
        layer: the shallowest of which it sees victims.
        kind: ``activation`` or ``partial_sum``.
        seen: every row, own ones too, of which it saw all these units.
    """

    layer: Layer
    kind: str
    seen: Block

    def find(self, rows: Rows) -> Int64[Tensor, " n"]:
        """Place of each row in ``seen``; -1 = not seen."""
        return places(self.seen.rows, rows)

    def features(self, rows: Rows) -> Float[Tensor, "found features"]:
        """What was seen of those of ``rows`` that were seen, flattened."""
        at = self.find(rows)
        return self.seen.payload[at[at >= 0]].flatten(1)


def places(known: Rows, rows: Rows) -> Int64[Tensor, " n"]:
    """Place of each of ``rows`` in ``known`` (sorted by step and index); -1 = not there."""
    if not len(known):
        return torch.full((len(rows),), -1, dtype=torch.int64)
    keys, asked = _key(known), _key(rows)
    at = torch.searchsorted(keys, asked).clamp(max=len(keys) - 1)
    return torch.where(keys[at] == asked, at, -1)


def seen_of_victims(
    view: View, kinds: Sequence[str] = ("activation", "partial_sum")
) -> Seen | None:
    """What the seat saw of the shallowest layer where it saw victims; None = nothing.

    The units are those seen of samples that are not its own: of these a device sees all units, but
    that helps with nobody else's. Where it saw several partial sums of a layer they are added up.
    """
    own = view.own.rows if view.own is not None else torch.empty(0, 2, dtype=torch.int64)
    own = own[_key(own).argsort()]
    for layer in view.topology.layers:
        for kind in kinds:
            messages = [m for m in view.messages if m.kind == kind and m.layer == layer.name]
            if not messages:
                continue
            found = _assembled(messages, own, layer, kind)
            if len(found.rows) and bool((places(found.rows, view.victims) >= 0).any()):
                return Seen(layer, kind, found)
    return None


def _assembled(messages: list[Message], own: Rows, layer: Layer, kind: str) -> Block:
    everything = tuple(range(layer.channels))
    foreign = _foreign(messages, own)
    units = {unit for message in foreign for unit in (message.units or everything)}
    kept = [
        _restricted(message, units, everything)
        for message in messages
        if units.intersection(message.units or everything)
    ]
    if kind != "partial_sum":
        return block(kept, layer, kind)
    senders = sorted({message.sender for message in foreign})
    parts = [block([m for m in kept if m.sender == sender], layer, kind) for sender in senders]
    return _added(parts) if parts else block((), layer, kind)


def _foreign(messages: list[Message], own: Rows) -> list[Message]:
    """Messages with a row that is not the seat's own."""
    sizes = torch.tensor([len(message.rows) for message in messages])
    steps = torch.tensor([message.step for message in messages]).repeat_interleave(sizes)
    rows = torch.stack([steps, torch.cat([message.rows for message in messages])], dim=1)
    other = (places(own, rows) < 0).split(sizes.tolist())
    return [m for m, theirs in zip(messages, other, strict=True) if bool(theirs.any())]


def _restricted(message: Message, units: set[int], everything: tuple[int, ...]) -> Message:
    """The message without units that are not asked for."""
    held = message.units or everything
    if units.issuperset(held):
        return message
    columns = [column for column, unit in enumerate(held) if unit in units]
    kept = tuple(held[column] for column in columns)
    return replace(message, units=kept, payload=message.payload[:, columns])


def _added(parts: Sequence[Block]) -> Block:
    """Partial sums of the same units from several senders, added up where all were seen."""
    first, *others = [part for part in parts if part.units == parts[0].units]
    for other in others:
        at = places(other.rows, first.rows)
        both = at >= 0
        payload = first.payload[both] + other.payload[at[both]]
        first = replace(first, rows=first.rows[both], payload=payload)
    return first


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
