"""Where a seat stands: how deep, how wide, how long, how many, as far as it matters for what it learns."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from privbench.contract import Message, Topology, View

KINDS = ("activation", "partial_sum", "gradient")


@dataclass(frozen=True)
class Position:
    """What a view covers of its victims; None where the regime has no layers on its wire.

    Args:
        depth: layers between the input and the shallowest one of which it sees victims.
        share_seen: share of that layer's channels that it sees of them.
        epochs_seen: epochs of which it holds messages.
        coalition: parties that it controls; None = it controls none and taps links.
    """

    depth: int | None = None
    share_seen: float | None = None
    epochs_seen: int | None = None
    coalition: int | None = None


def position_of(view: View) -> Position:
    """The position of one view."""
    per_epoch = max(1, view.topology.steps_per_epoch)
    epochs = len({step // per_epoch for step in view.steps()}) or None
    coalition = len(view.seat.parties) or None
    depths = depths_of(view.topology)
    seen = _shallowest(view, depths)
    if seen is None:
        return Position(epochs_seen=epochs, coalition=coalition)
    name, units = seen
    channels = view.topology.layer(name).channels
    return Position(depths[name], len(units) / channels, epochs, coalition)


def depths_of(topology: Topology) -> dict[str, int]:
    """Of each layer the number of layers on the longest way from the input to its output."""
    depths: dict[str, int] = {}
    for layer in topology.layers:
        depths[layer.name] = 1 + max((depths.get(name, 0) for name in layer.inputs), default=0)
    return depths


def _shallowest(view: View, depths: dict[str, int]) -> tuple[str, frozenset[int]] | None:
    """The shallowest layer of which victims were seen, and its units: values before their gradients."""
    victims: dict[int, torch.Tensor] = {
        step: view.victims[view.victims[:, 0] == step, 1]
        for step in view.victims[:, 0].unique().tolist()
    }
    for kind in KINDS:
        units: dict[str, set[int]] = {}
        for message in view.select(kind):
            if message.step in victims and _of(message, victims[message.step]):
                every = range(view.topology.layer(message.layer).channels)
                units.setdefault(message.layer, set()).update(message.units or every)
        if units:
            name = min(units, key=lambda each: depths[each])
            return name, frozenset(units[name])
    return None


def _of(message: Message, rows: torch.Tensor) -> bool:
    return bool(torch.isin(message.rows, rows).any())
