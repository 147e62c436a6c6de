"""What one device computes of a stage: with tensors of its own, and without those of others."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import Slice
from privbench.slicenet.graph import Stage
from privbench.slicenet.noise import Noise
from privbench.slicenet.ops import Piece
from privbench.slicenet.passes import applied, inputs_of
from privbench.slicenet.skeleton import Order, Skeleton, index_of


class Work(ABC):
    """A device's part of one stage, for all its tiles of it together.

    The forward pass has two halves: ``spread`` computes what the tiles add to the stage's map, and
    ``finish`` what follows the whole sum. Each is differentiated by itself, since gradients arrive
    between them.

    Args:
        stage: with the tensors of a whole network, of which this takes shapes alone.
        pieces: the device's tiles.

    Attributes:
        touched: channels of the map that ``spread`` gives, in its order.
        finished: channels that the device finishes, ascending.
        tensors: the device's own, by name; a weight may be held in several.
    """

    def __init__(self, stage: Stage, pieces: Sequence[Slice]) -> None:
        self.stage, self.pieces = stage, tuple(pieces)
        self.name = stage.layer.name
        units = {unit for piece in pieces if piece.reduces for unit in piece.units}
        self.finished = tuple(sorted(units))
        self.touched = self.finished
        self.tensors: dict[str, list[Tensor]] = {}
        self._entries: dict[str, Tensor] = {}
        self._mine = self._total = self._out = torch.empty(0)

    @cached_property
    def in_touched(self) -> Order:
        """Where channels stand in what ``spread`` gives."""
        return Order(self.touched)

    @cached_property
    def in_finished(self) -> Order:
        """Where channels stand in what ``finish`` gives."""
        return Order(self.finished)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Layers of which the tiles need something; others that feed the stage may be empty."""
        needed = {need.layer for piece in self.pieces for need in piece.needs}
        return tuple(name for name in self.stage.layer.inputs if name in needed)

    def spread(
        self, values: Mapping[str, Float[Tensor, "n _c ..."]], noise: Noise
    ) -> Float[Tensor, "n touched ..."]:
        """What the tiles add to the map; ``values`` hold what has arrived, else zeros."""
        self._entries = {name: values[name].detach().requires_grad_() for name in self.sources}
        self._mine = self._core({**values, **self._entries}, noise)
        return self._mine.detach()

    def finish(
        self, total: Float[Tensor, "n finished ..."], noise: Noise
    ) -> Float[Tensor, "n finished ..."]:
        """What the finished channels become."""
        self._total = total.detach().requires_grad_()
        self._out = self._closing(self._total, noise)
        return self._out.detach()

    def back_to_sum(self, gradient: Tensor) -> Tensor:
        """The gradient of ``total`` from that of what ``finish`` gave."""
        (found,) = self._gradients(self._out, [self._total], gradient)
        self._total = self._out = torch.empty(0)
        return found

    def back_to_entries(self, delta: Tensor) -> dict[str, Tensor]:
        """Gradients of what was fed, from that of what ``spread`` gave."""
        wanted = list(self._entries.values())
        found = self._gradients(self._mine, wanted, delta)
        flows = dict(zip(self._entries, found, strict=True))
        self._entries, self._mine = {}, torch.empty(0)
        return flows

    def trained(self) -> Iterator[Tensor]:
        """Tensors that are learned."""
        held = {id(each): each for several in self.tensors.values() for each in several}
        yield from (tensor for tensor in held.values() if tensor.requires_grad)

    def part(self, piece: Slice, name: str) -> Tensor:
        """A copy of what a tile holds of a tensor."""
        tensor, index = self._place(piece, name)
        return tensor.detach()[index].clone()

    def hold(self, piece: Slice, name: str, value: Tensor) -> None:
        """Take in what a tile holds of a tensor."""
        tensor, index = self._place(piece, name)
        tensor.detach()[index] = value

    def _place(self, piece: Slice, name: str) -> tuple[Tensor, Any]:
        """The tensor in which it lies, and where."""
        (tensor,) = self.tensors[name]
        if tensor.ndim == 0 or piece.whole or len(tensor) != len(self.finished):
            return tensor, ...
        at = {unit: place for place, unit in enumerate(self.finished)}
        return tensor, [at[unit] for unit in piece.units]

    def _gradients(
        self, out: Tensor, wanted: Sequence[Tensor], gradient: Tensor
    ) -> tuple[Tensor, ...]:
        """Of ``wanted``; those of the device's tensors are added to what they have."""
        own = list(self.trained())
        found = torch.autograd.grad(out, [*wanted, *own], gradient, allow_unused=True)
        for tensor, each in zip(own, found[len(wanted) :], strict=True):
            if each is not None:
                tensor.grad = each if tensor.grad is None else tensor.grad + each
        return tuple(
            torch.zeros_like(asked) if each is None else each
            for asked, each in zip(wanted, found[: len(wanted)], strict=True)
        )

    @abstractmethod
    def _core(self, values: Mapping[str, Tensor], noise: Noise) -> Tensor:
        """The map's touched channels, as far as the tiles add to them."""

    @abstractmethod
    def _closing(self, total: Tensor, noise: Noise) -> Tensor:
        """What follows the sum."""


class WholeWork(Work):
    """A stage that one device computes as it is: the network's own calls, with the device's tensors."""

    def __init__(self, stage: Stage, pieces: Sequence[Slice], skeleton: Skeleton) -> None:
        super().__init__(stage, pieces)
        self._skeleton = skeleton
        own = {id(tensor): _own(tensor) for tensor in stage.tensors.values()}  # some are shared
        self.tensors = {name: [own[id(tensor)]] for name, tensor in stage.tensors.items()}

    def _lent(self) -> Any:
        return self._skeleton.lent({name: held[0] for name, held in self.tensors.items()})

    def _core(self, values: Mapping[str, Tensor], noise: Noise) -> Tensor:
        with self._lent():
            fed = [operand(values, noise) for operand in self.stage.operands]
            return self.stage.core(*fed, noise=noise)

    def _closing(self, total: Tensor, noise: Noise) -> Tensor:
        with self._lent():
            return self.stage.closing(total, noise)


class ChannelWork(Work):
    """Some channels of a join."""

    def __init__(self, stage: Stage, pieces: Sequence[Slice]) -> None:
        super().__init__(stage, pieces)
        self._index = index_of(self.finished, stage.layer.channels)
        self._after = self._cut_closing()

    def _cut_closing(self) -> Piece:
        """The operations that follow, with modules that know the finished channels alone."""
        names = {id(tensor): name for name, tensor in self.stage.tensors.items()}
        if not self.finished:
            return Piece()
        calls = []
        for call in self.stage.closing.calls:
            if call.module is not None:
                module = _cut_module(call.module, self.finished, self.stage.layer.channels)
                for kept, own in zip(_tensors(call.module), _tensors(module), strict=True):
                    if id(kept) in names:
                        self.tensors[names[id(kept)]] = [own]
                call = replace(call, run=module, module=module)
            calls.append(call)
        return Piece(tuple(calls), self.stage.closing.in_place)

    def _core(self, values: Mapping[str, Tensor], noise: Noise) -> Tensor:
        fed = [operand(values, noise) for operand in self.stage.operands]
        return self.stage.core(*[each[:, self._index] for each in fed], noise=noise)

    def _closing(self, total: Tensor, noise: Noise) -> Tensor:
        return self._after(total, noise, units=self.finished)


@dataclass(frozen=True, eq=False)
class _Bundle:
    """Tiles of a layer that are computed in one call.

    Args:
        units: output channels, block by block.
        inputs: indices of the operand's second axis.
        groups: of the convolution.
        weight: rows for ``units``; columns for ``inputs``, or for those of one group.
        index: of ``inputs``.
    """

    units: tuple[int, ...]
    inputs: tuple[int, ...]
    groups: int
    weight: Tensor
    index: Any


class LayerWork(ChannelWork):
    """Some rows and columns of a linear layer's or convolution's weight.

    Tiles of one block of output channels are put side by side, and blocks that work on the same
    inputs on top of each other: one call for many tiles.
    """

    def __init__(self, stage: Stage, pieces: Sequence[Slice]) -> None:
        super().__init__(stage, pieces)
        self._weight = next(n for n, t in stage.tensors.items() if t is stage.weight)
        self._bundles = _bundles(stage, pieces)
        self._where = _places(self._bundles, stage, pieces)
        self.touched = tuple(unit for bundle in self._bundles for unit in bundle.units)
        self.tensors[self._weight] = [bundle.weight for bundle in self._bundles]
        self._bias: Tensor | None = None
        if stage.bias is not None and self.finished:
            name = next(n for n, t in stage.tensors.items() if t is stage.bias)
            self._bias = _own(stage.bias.detach()[list(self.finished)], stage.bias.requires_grad)
            self.tensors[name] = [self._bias]

    def _place(self, piece: Slice, name: str) -> tuple[Tensor, Any]:
        if name != self._weight:
            return super()._place(piece, name)
        bundle, rows, columns = self._where[piece.units, piece.columns]
        return bundle.weight, (rows, columns)

    def _core(self, values: Mapping[str, Tensor], noise: Noise) -> Tensor:
        opened = self.stage.operands[0](values, noise)
        parts = [
            applied(self.stage, opened[:, bundle.index], bundle.weight, bundle.groups)
            for bundle in self._bundles
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _closing(self, total: Tensor, noise: Noise) -> Tensor:
        if self._bias is not None:
            total = total + self._bias.reshape(-1, *[1] * (total.ndim - 2))
        return super()._closing(total, noise)


def work_of(skeleton: Skeleton, stage: Stage, pieces: Sequence[Slice]) -> Work:
    """A device's part of a stage."""
    if stage.sort in ("whole", "loss"):
        return WholeWork(stage, pieces, skeleton)
    return LayerWork(stage, pieces) if stage.sort == "layer" else ChannelWork(stage, pieces)


def _bundles(stage: Stage, pieces: Sequence[Slice]) -> list[_Bundle]:
    blocks: dict[tuple[int, ...], list[Slice]] = {}
    for piece in sorted(pieces, key=lambda p: (p.units, p.columns or ())):
        blocks.setdefault(piece.units, []).append(piece)
    together: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    apart: list[tuple[int, ...]] = []  # blocks of whole groups, of which there are several
    each = stage.layer.channels // stage.groups
    for units, held in blocks.items():
        if stage.groups > 1 and held[0].columns is None and len(units) % each == 0:
            apart.append(units)
        else:
            inputs = tuple(index for piece in held for index in inputs_of(stage, piece))
            together.setdefault(inputs, []).append(units)
    found = [_bundle(stage, inputs, many, 1) for inputs, many in together.items()]
    if apart:
        inputs = tuple(i for units in apart for i in inputs_of(stage, blocks[units][0]))
        found.append(_bundle(stage, inputs, apart, len(inputs) // stage.weight.shape[1]))
    return found


def _bundle(
    stage: Stage, inputs: tuple[int, ...], blocks: Sequence[tuple[int, ...]], groups: int
) -> _Bundle:
    units = tuple(unit for block in blocks for unit in block)
    shape = (len(units), len(inputs) // groups, *stage.weight.shape[2:])
    weight = stage.weight.detach().new_zeros(shape)
    size = stage.weight.shape[1] * stage.groups
    trained = stage.weight.requires_grad
    return _Bundle(units, inputs, groups, weight.requires_grad_(trained), index_of(inputs, size))


def _places(
    bundles: Sequence[_Bundle], stage: Stage, pieces: Sequence[Slice]
) -> dict[tuple[tuple[int, ...], tuple[int, ...] | None], tuple[_Bundle, slice, slice]]:
    """Where the weight of each tile lies."""
    found = {}
    starts = {
        unit: (bundle, place) for bundle in bundles for place, unit in enumerate(bundle.units)
    }
    for piece in pieces:
        bundle, row = starts[piece.units[0]]
        inputs = inputs_of(stage, piece)
        width = len(inputs) if bundle.groups == 1 else stage.weight.shape[1]
        column = bundle.inputs.index(inputs[0]) if bundle.groups == 1 else 0
        rows, columns = slice(row, row + len(piece.units)), slice(column, column + width)
        found[piece.units, piece.columns] = (bundle, rows, columns)
    return found


def _cut_module(module: nn.Module, units: Sequence[int], channels: int) -> nn.Module:
    """A module that works on channels alone, for some of them; its tensors hold no values yet."""
    cut = copy.deepcopy(module)
    kinds: tuple[dict[str, Any], ...] = (cut._parameters, cut._buffers)
    for kind in kinds:
        for name, tensor in kind.items():
            if tensor is not None and tensor.ndim and len(tensor) == channels:
                part = tensor.detach()[list(units)]
                learned = isinstance(tensor, nn.Parameter)
                kind[name] = nn.Parameter(part, tensor.requires_grad) if learned else part
    if isinstance(cut, nn.GroupNorm):
        cut.num_groups = cut.num_groups * len(units) // channels
    for name in ("num_channels", "num_features"):
        if hasattr(cut, name):
            setattr(cut, name, len(units))
    return cut


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _own(tensor: Tensor, trained: bool | None = None) -> Tensor:
    """A tensor of the same shape that shares no memory."""
    asked = tensor.requires_grad if trained is None else trained
    return tensor.detach().clone().requires_grad_(asked)
