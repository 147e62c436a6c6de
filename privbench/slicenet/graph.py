"""A network as the graph of stages that a crowd slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm, prod
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import Layer, Slice
from privbench.slicenet.noise import Noise
from privbench.slicenet.ops import NOTHING, Piece


@dataclass(frozen=True, eq=False)
class Strand:
    """What one stage, or the input, gives to an operand.

    Args:
        source: name of the stage; "" = the samples themselves.
        channels: of the source.
        width: numbers of the operand's second axis that one channel becomes: several, behind a flatten.
        piece: operations on the way (a flatten).
    """

    source: str
    channels: int
    width: int = 1
    piece: Piece = NOTHING


@dataclass(frozen=True, eq=False)
class Operand:
    """One value that a stage works on: strands side by side, then operations that treat numbers alone."""

    strands: tuple[Strand, ...]
    after: Piece = NOTHING

    def __call__(
        self, values: Mapping[str, Tensor], noise: Noise | None = None, **where: Any
    ) -> Tensor:
        parts = [s.piece(values[s.source], noise, **where) for s in self.strands]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return self.after(joined, noise, **where)

    @property
    def sources(self) -> tuple[str, ...]:
        """Stages that feed it, each once."""
        return tuple(dict.fromkeys(strand.source for strand in self.strands))


@dataclass(frozen=True, eq=False)
class Stage:
    """A piece of the network whose value travels: a layer, a join, or a module taken whole.

    Running all stages in order computes what the module computes, with the module's own
    parameters, in the same order: bit-identical.

    Args:
        layer: its public description.
        sort: ``layer`` (linear or convolution), ``join`` (channel by channel, of one or more values),
            ``whole``, or ``loss`` (it gives on the network's answer to where labels are known).
        operands: what it works on.
        core: from operands to the stage's map.
        module: the linear layer or convolution; None = another sort.
        closing: per-channel operations after it, that travel with its channels.
        map_shape: shape of the map for one sample.
        flops: of the forward pass of the core on one sample, 2 a multiply-add.
        tensors: its tensors by their names in the state dict, live, the core's first.
    """

    layer: Layer
    sort: str
    operands: tuple[Operand, ...]
    core: Callable[..., Tensor] = field(repr=False)
    module: nn.Module | None
    closing: Piece
    map_shape: tuple[int, ...]
    flops: float
    tensors: Mapping[str, Tensor]

    def __call__(
        self, values: Mapping[str, Tensor], noise: Noise | None = None, **where: Any
    ) -> Tensor:
        fed = [operand(values, noise, **where) for operand in self.operands]
        return self.closing(self.core(*fed, noise=noise, **where), noise, **where)

    @property
    def border(self) -> int:
        """Channels that cannot be parted: of a norm's group; all of them where nothing can be split."""
        if self.sort in ("whole", "loss"):
            return self.layer.channels
        return min(self.layer.channels, lcm(1, self.closing.border(self.layer.channels)))

    @property
    def groups(self) -> int:
        """Groups of a convolution; 1 elsewhere."""
        return int(getattr(self.module, "groups", 1))

    @property
    def weight(self) -> Tensor:
        """Of the linear layer or convolution."""
        return cast(Tensor, cast(nn.Module, self.module).weight)

    @property
    def bias(self) -> Tensor | None:
        """Of the linear layer or convolution, if it has one."""
        return cast(Tensor | None, cast(nn.Module, self.module).bias)

    @property
    def output(self) -> int:
        """Numbers a sample that it gives."""
        return prod(self.layer.shape)


@dataclass(frozen=True, eq=False)
class Graph:
    """Stages in order of the forward pass; ``places`` in order: stem, body, tail.

    Args:
        stages: each is fed by earlier ones or by the samples.
        result: what the network answers, from the values of its stages.
        root: the traced network that stages call: its modules and tensors are the network's own.
    """

    stages: tuple[Stage, ...]
    result: Operand
    root: nn.Module = field(default_factory=nn.Module, repr=False)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Public descriptions, in order of the forward pass."""
        return tuple(stage.layer for stage in self.stages)

    def placed(self, place: str) -> tuple[Stage, ...]:
        """Stages of ``stem``, ``body`` or ``tail``."""
        return tuple(stage for stage in self.stages if stage.layer.place == place)

    @property
    def travelling(self) -> tuple[str, ...]:
        """Layers of stem and body that a stage of another place, or of the body, needs."""
        places = {stage.layer.name: stage.layer.place for stage in self.stages}
        needed = {
            name
            for stage in self.stages
            for name in stage.layer.inputs
            if "body" in (places[name], stage.layer.place)
        }
        return tuple(name for name in places if name in needed)

    def run(
        self,
        stages: Sequence[Stage],
        values: Mapping[str, Tensor],
        noise: Noise | None = None,
        **where: Any,
    ) -> dict[str, Tensor]:
        """Values of some stages beside those that are known; the samples are called ""."""
        known = dict(values)
        for stage in stages:
            known[stage.layer.name] = stage(known, noise, **where)
        return known

    def __call__(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
        return self.result(self.run(self.stages, {"": x}))


def parameters_of(stages: Sequence[Stage]) -> dict[str, Tensor]:
    """Trained tensors of some stages, by name."""
    return {
        name: tensor
        for stage in stages
        for name, tensor in stage.tensors.items()
        if tensor.requires_grad
    }


@dataclass(frozen=True, eq=False)
class Held:
    """What a slice holds of one tensor of its stage: number of the slice, name, part, and the whole."""

    number: int
    piece: Slice
    name: str
    part: Tensor
    whole: Tensor

    @property
    def units(self) -> tuple[int, ...] | None:
        """As messages name them; None = all."""
        return None if self.piece.whole else self.piece.units


def held_by(pieces: Sequence[Slice], stages: Sequence[Stage]) -> Iterator[Held]:
    """All that slices hold of a network's tensors, in order."""
    tensors = {stage.layer.name: stage.tensors for stage in stages}
    for number, piece in enumerate(pieces):
        for name, whole in tensors[piece.layer].items():
            part = piece.part(whole.detach())
            if part is not None:
                yield Held(number, piece, name, part, whole)
