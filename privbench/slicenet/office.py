"""Those who add up, learn and hand out parameters in a sliced network: coordinator and releaser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from privbench.contract import Slice
from privbench.slicenet.clipping import factor_of, square_of

Make = Callable[[Iterable[Tensor]], Optimizer]
"""Builds an optimiser of some tensors."""


class Learner:
    """Learns tensors of its own by an optimiser of its own.

    Args:
        make: an element-wise optimiser of some tensors.
        tensors: leaves; those that are not learned are left out.
        like: any tensor, which says in what arithmetic.
    """

    def __init__(self, make: Make, tensors: Iterable[Tensor], like: Tensor) -> None:
        self._make, self._tensors = make, [t for t in tensors if t.requires_grad]
        self._like = like
        self._optimizer: Optimizer | None = None

    def square(self) -> Tensor:
        """Squared norm of the gradients that have come together, shape (1,)."""
        return square_of((tensor.grad for tensor in self._tensors), self._like)

    def scale(self, factor: Tensor) -> None:
        """Multiply them."""
        for tensor in self._tensors:
            if tensor.grad is not None:
                tensor.grad.mul_(factor)

    def learn(self) -> None:
        """One step along the gradients that have come together."""
        if not self._tensors:
            return
        if self._optimizer is None:  # now that the tensors have their initial values
            self._optimizer = self._make(self._tensors)
        self._optimizer.step()
        self._optimizer.zero_grad()


class Coordinator:
    """Holds stem and tail, adds up their gradients and learns.

    Args:
        make: an element-wise optimiser of some tensors.
        tensors: of stem and tail, as named in the state dict; they say shapes alone.
    """

    def __init__(self, make: Make, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {
            name: torch.zeros_like(tensor, requires_grad=True) for name, tensor in tensors.items()
        }
        like = next(iter(tensors.values()), torch.empty(0)).detach()
        self._learner = Learner(make, self._tensors.values(), like)
        self._squares: list[Tensor] = []
        self._factor: Tensor | None = None

    def hear(self, square: Tensor) -> None:
        """A host's part of the squared norm of the gradient."""
        self._squares.append(square)

    def clipped(self, most: float) -> Tensor:
        """What everyone multiplies a gradient by, so that its norm is at most ``most``; its own too."""
        if self._factor is None:
            total = self._learner.square()
            for square in self._squares:
                total = total + square
            self._factor = factor_of(total, most)
            self._learner.scale(self._factor)
        return self._factor

    def hold(self, name: str, value: Tensor) -> None:
        """Take in initial values."""
        self._tensors[name].detach().copy_(value)

    def part(self, name: str) -> Tensor:
        """A copy of a tensor in force."""
        return self._tensors[name].detach().clone()

    def add(self, name: str, gradient: Tensor) -> None:
        """Take in an owner's gradient."""
        tensor = self._tensors[name]
        tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient

    def learn(self) -> None:
        """One step."""
        self._learner.learn()
        self._squares, self._factor = [], None


class Releaser:
    """Hands out initial weights and puts the trained ones together; it is trusted and not attacked.

    Args:
        state: all tensors of the network, at first.
        slices: who hosts what.
    """

    def __init__(self, state: Mapping[str, Tensor], slices: Sequence[Slice]) -> None:
        self._slices = slices
        self.state = {name: tensor.clone() for name, tensor in state.items()}

    def part(self, name: str, piece: int | None) -> Tensor:
        """What goes to the host of a tile, or (None) to the coordinator."""
        tensor = self.state[name]
        found = tensor if piece is None else self._slices[piece].part(tensor)
        return torch.empty(0) if found is None else found.clone()

    def hold(self, name: str, piece: int | None, value: Tensor) -> None:
        """Put a part in its place."""
        put(self.state, name, None if piece is None else self._slices[piece], value)


def put(state: Mapping[str, Tensor], name: str, piece: Slice | None, value: Tensor) -> None:
    """Write what a tile holds of a tensor where it belongs in the whole."""
    tensor = state[name]
    if piece is None or tensor.shape == value.shape:
        tensor.copy_(value)
    elif piece.columns is None or tensor.ndim < 2:
        tensor[list(piece.units)] = value
    else:
        tensor[torch.tensor(piece.units)[:, None], torch.tensor(piece.columns)] = value
