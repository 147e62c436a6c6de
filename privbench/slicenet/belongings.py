"""Slices as things: what a device holds of the network, copied, handed over and put back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.optim import Optimizer

from privbench.contract import Party, Slice
from privbench.slicenet.graph import Stage


@dataclass(frozen=True, eq=False)
class Part:
    """A part of one tensor of the network.

    Args:
        name: of the tensor in the state dict.
        units: of the slice; None = all of its layer.
        tensor: the whole, which others hold parts of too.
        at: places in it, as if it had one axis.
    """

    name: str
    units: tuple[int, ...] | None
    tensor: Tensor
    at: Int64[Tensor, " n ..."]


@dataclass(frozen=True, eq=False)
class Content:
    """What a part holds at one time: its numbers, and the optimiser's for each of them, by name."""

    numbers: Tensor
    states: dict[str, Tensor]


class Belongings:
    """Slices by their home.

    What goes with a slice is its parameters, its running statistics, and the optimiser's numbers for
    each parameter: whoever goes on with it goes on as its host would have. Counters that an optimiser
    keeps for a whole tensor (the steps of Adam) are known to everybody and stay what they are.

    Args:
        stages: of the network that is trained.
        slices: who is at home where.
        optimizer: of all parameters.
    """

    def __init__(
        self, stages: Iterable[Stage], slices: Sequence[Slice], optimizer: Optimizer
    ) -> None:
        tensors = {stage.layer.name: stage.tensors for stage in stages}
        self._optimizer = optimizer
        self._parts: defaultdict[Party, list[Part]] = defaultdict(list)
        for piece in slices:
            mine = self._parts[piece.party]  # a home even where its slices have no tensors
            for name, tensor in tensors[piece.layer].items():
                at = piece.part(torch.arange(tensor.numel()).reshape(tensor.shape))
                if at is not None and tensor.is_floating_point():
                    units = None if piece.whole else piece.units
                    mine.append(Part(name, units, tensor, at.to(tensor.device)))

    @property
    def homes(self) -> tuple[Party, ...]:
        """Devices that are given slices at the start."""
        return tuple(self._parts)

    def count(self, home: Party) -> int:
        """Parameters and running statistics of a home's slices, in numbers."""
        return sum(part.at.numel() for part in self._parts[home])

    def take(self, home: Party) -> tuple[Content, ...]:
        """A copy of what a home's slices hold now."""
        return tuple(
            Content(
                part.tensor.detach().take(part.at),
                {name: state.take(part.at) for name, state in self._states(part)},
            )
            for part in self._parts[home]
        )

    def put(self, home: Party, contents: Sequence[Content]) -> None:
        """Set a home's slices back to a copy; numbers of the optimiser that it lacks become 0."""
        with torch.no_grad():
            for part, content in zip(self._parts[home], contents, strict=True):
                part.tensor.put_(part.at, content.numbers)
                for name, state in self._states(part):
                    held = content.states.get(name)
                    state.put_(part.at, torch.zeros_like(content.numbers) if held is None else held)

    def sent(
        self, home: Party, contents: Sequence[Content]
    ) -> Iterator[tuple[str, tuple[int, ...] | None, Tensor]]:
        """Name, units and numbers of each tensor that goes with a home's slices."""
        for part, content in zip(self._parts[home], contents, strict=True):
            yield part.name, part.units, content.numbers
            for name, state in content.states.items():
                yield f"{part.name}.{name}", part.units, state

    def _states(self, part: Part) -> Iterator[tuple[str, Tensor]]:
        found = self._optimizer.state.get(part.tensor, {})
        for name, state in found.items():
            if isinstance(state, Tensor) and state.shape == part.tensor.shape and state.ndim:
                yield name, state
