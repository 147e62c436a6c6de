"""One stage forward and back, whole and in the parts that single devices would compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import grad

from privbench.contract import Party, Slice
from privbench.slicenet.graph import Stage
from privbench.slicenet.links import OWNER, Links
from privbench.slicenet.noise import Noise

_CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_CONVOLVE_BACK = {3: grad.conv1d_input, 4: grad.conv2d_input, 5: grad.conv3d_input}


@dataclass(frozen=True, eq=False)
class Pass:
    """A stage that has run forward; its autograd graph begins at ``entries``.

    Args:
        entries: what travelled in, by the layer that it came from.
        opened: operands, with all channels in place.
        mapped: the core's own output.
        out: behind the closing; what travels on.
    """

    stage: Stage
    entries: Mapping[str, Float[Tensor, "n ..."]]
    opened: tuple[Float[Tensor, "n ..."], ...]
    mapped: Float[Tensor, "n ..."]
    out: Float[Tensor, "n ..."]

    def backward(self, gradient: Tensor) -> Back:
        """From the gradient of ``out`` to all others, in one go."""
        entries = {name: e for name, e in self.entries.items() if e.requires_grad}
        tensors = {n: t for n, t in self.stage.tensors.items() if t.requires_grad}
        inner = [self.mapped] if self.mapped.requires_grad else []
        found = _gradients(self.out, [*inner, *entries.values(), *tensors.values()], gradient)
        delta = found[0] if inner else None
        rest = found[len(inner) :]
        return Back(
            delta=gradient if delta is None else delta,
            flows=dict(zip(entries, rest[: len(entries)], strict=True)),
            tensors=dict(zip(tensors, rest[len(entries) :], strict=True)),
        )

    def backward_from(self, back: Back, delta: Tensor) -> Back:
        """The same with another gradient of ``mapped``: what others were told may have changed."""
        entries = {name: e for name, e in self.entries.items() if e.requires_grad}
        core = {n: t for n, t in self.stage.tensors.items() if t.requires_grad and n in self._core}
        found = _gradients(self.mapped, [*entries.values(), *core.values()], delta)
        flows = dict(zip(entries, found[: len(entries)], strict=True))
        tensors = {**back.tensors, **dict(zip(core, found[len(entries) :], strict=True))}
        return Back(delta, flows, tensors)

    @property
    def _core(self) -> set[str]:
        """Names of the layer's own tensors."""
        module = self.stage.module
        own = [id(p) for p in module.parameters()] if module is not None else []
        return {name for name, tensor in self.stage.tensors.items() if id(tensor) in own}

    def part(self, source: str, pieces: Sequence[Slice], back: Back) -> Tensor:
        """What these tiles of the stage add to the gradient of one source, ``(n, channels, ...)``.

        Channels that no tile works on hold values of no meaning.
        """
        flow = back.flows[source]
        if covered(self.stage, source, pieces):
            return flow
        if self.stage.sort == "join":
            kept = torch.zeros_like(back.delta)
            for piece in pieces:
                kept[:, list(piece.units)] = back.delta[:, list(piece.units)]
            (found,) = _gradients(self.mapped, [self.entries[source]], kept)
            return found
        (opened,) = self.opened
        gradient = layer_part(self.stage, opened.shape, pieces, back.delta)
        entry = self.entries[source]
        if opened is entry:
            return gradient
        (found,) = _gradients(opened, [entry], gradient)
        return found


@dataclass(frozen=True, eq=False)
class Back:
    """Gradients of one stage.

    Args:
        delta: of ``mapped``.
        flows: of what travelled in, by the layer that it came from.
        tensors: of its trained tensors.
    """

    delta: Tensor
    flows: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]

    def add_to(self, stage: Stage) -> None:
        """Add what it found to what others did: stages, and parts of a step, may share a tensor.

        A tensor of two names within the stage stands under both with its whole gradient, and counts once.
        """
        known = ((stage.tensors[name], value) for name, value in self.tensors.items())
        for tensor, value in {id(tensor): (tensor, value) for tensor, value in known}.values():
            tensor.grad = value if tensor.grad is None else tensor.grad + value


def forward(stage: Stage, values: Mapping[str, Tensor], noise: Noise | None = None) -> Pass:
    """Run a stage on detached values that ask for gradients."""
    sources = [source for operand in stage.operands for source in operand.sources]
    entries = {source: values[source] for source in sources if source}
    opened = tuple(operand(values, noise) for operand in stage.operands)
    mapped = stage.core(*opened, noise=noise)
    return Pass(stage, entries, opened, mapped, stage.closing(mapped, noise))


def replaced(done: Pass, mapped: Tensor, noise: Noise | None = None) -> Pass:
    """The same pass with another map in place of its own; gradients flow as before."""
    shifted = done.mapped + (mapped.to(done.mapped) - done.mapped).detach()
    return Pass(done.stage, done.entries, done.opened, shifted, done.stage.closing(shifted, noise))


def part_of(
    links: Links, source: str, party: Party, flows: Sequence[tuple[Pass, Back]]
) -> Float[Tensor, "n channels ..."]:
    """One device's part of the gradient of a layer, or that of the tails of all owners.

    Args:
        flows: passes of the stages that work on the layer, and their gradients.
    """
    parts: list[tuple[Tensor, Sequence[Slice]]] = []
    for ran, back in flows:
        stage = ran.stage.layer
        if stage.place == "tail" and party == OWNER:
            parts.append((back.flows[source], ()))
        elif stage.place != "tail" and party != OWNER:
            hosted = links.hosted(party, stage.name)
            mine = [piece for piece in hosted if any(need.layer == source for need in piece.needs)]
            if mine:
                parts.append((ran.part(source, mine, back), mine))
    return added(source, parts)


def stays(made: Pass, needed: Pass) -> bool:
    """Does a value go from the stem to the tail, without leaving its owner?"""
    return (made.stage.layer.place, needed.stage.layer.place) == ("stem", "tail")


def sum_of(links: Links, ran: Pass, host: Party, units: tuple[int, ...]) -> Tensor:
    """What a host's tiles add to one block of a stage's map."""
    (opened,) = ran.opened
    hosted = links.hosted(host, ran.stage.layer.name)
    return partial_sum(ran.stage, opened, [piece for piece in hosted if piece.units == units])


def added(source: str, parts: Sequence[tuple[Tensor, Sequence[Slice]]]) -> Tensor:
    """Parts of the gradient of a source, each on those channels alone that its tiles work on.

    Args:
        parts: with the tiles of one stage; none = all channels.
    """
    if len(parts) == 1:  # nobody looks at the other channels
        return parts[0][0]
    total = torch.zeros_like(parts[0][0])
    for part, pieces in parts:
        needs = [need.units for piece in pieces for need in piece.needs if need.layer == source]
        units = sorted({unit for need in needs for unit in need or ()})
        if not needs or None in needs or len(units) == part.shape[1]:
            total += part
        else:
            total[:, units] += part[:, units]
    return total


def covered(stage: Stage, source: str, pieces: Sequence[Slice]) -> bool:
    """Do tiles of a stage have all that depends on those channels of a source on which they work?"""
    if any(piece.whole for piece in pieces):
        return True
    if stage.sort == "join":
        strands = [s.source for operand in stage.operands for s in operand.strands]
        return strands.count(source) == 1
    each = stage.layer.channels // stage.groups
    return all(piece.columns is not None and len(piece.units) == each for piece in pieces)


def layer_part(
    stage: Stage, size: torch.Size, pieces: Sequence[Slice], delta: Float[Tensor, "n units ..."]
) -> Float[Tensor, "n inputs ..."]:
    """What tiles of a layer add to the gradient of its operand, whose size it is told.

    By the transposed layer, for the rows and columns of the weight that the tiles hold.

    Args:
        delta: gradient of the layer's map.
    """
    gradient = torch.zeros(size, dtype=delta.dtype, device=delta.device)
    by_columns: dict[tuple[int, ...], list[int]] = {}
    for piece in pieces:
        by_columns.setdefault(inputs_of(stage, piece), []).extend(piece.units)
    for inputs, units in by_columns.items():
        weight, groups = _weight(stage, sorted(units), inputs)
        given = delta[:, sorted(units)]
        part = torch.Size((size[0], len(inputs), *size[2:]))
        add = _transposed(stage, part, weight, given, groups)
        if len(inputs) == size[1]:
            gradient += add
        else:
            gradient[:, list(inputs)] += add
    return gradient


def partial_sum(
    stage: Stage, opened: Float[Tensor, "n inputs ..."], pieces: Sequence[Slice]
) -> Float[Tensor, "n units ..."]:
    """What tiles of one block add to its map, without bias; detached."""
    total: Tensor | None = None
    with torch.no_grad():
        for piece in pieces:
            inputs = inputs_of(stage, piece)
            weight, groups = _weight(stage, piece.units, inputs)
            part = applied(stage, opened[:, list(inputs)], weight, groups)
            total = part if total is None else total + part
    return cast(Tensor, total)


def inputs_of(stage: Stage, piece: Slice) -> tuple[int, ...]:
    """Indices of the operand's second axis on which a tile of a layer works."""
    each, width = stage.layer.channels // stage.groups, stage.weight.shape[1]
    first, last = piece.units[0] // each, piece.units[-1] // each
    if piece.columns is None:
        return tuple(range(first * width, (last + 1) * width))
    return tuple(first * width + column for column in piece.columns)


def _weight(stage: Stage, units: Sequence[int], inputs: Sequence[int]) -> tuple[Tensor, int]:
    """The part of the weight, and the groups of a convolution with it."""
    width = stage.weight.shape[1]
    rows = stage.weight.detach()[list(units)]
    if len(inputs) >= width:
        return rows, len(inputs) // width
    first = inputs[0] // width * width
    return rows[:, [index - first for index in inputs]], 1


def applied(stage: Stage, value: Tensor, weight: Tensor, groups: int) -> Tensor:
    """The layer's map from a part of its weight, without bias."""
    module: Any = stage.module
    if isinstance(module, nn.Linear):
        return F.linear(value, weight)
    padding = module.padding
    if module.padding_mode != "zeros":
        value = F.pad(value, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = 0
    convolve = _CONVOLVE[weight.ndim]
    out: Tensor = convolve(value, weight, None, module.stride, padding, module.dilation, groups)
    return out


def _transposed(
    stage: Stage, size: torch.Size, weight: Tensor, delta: Tensor, groups: int
) -> Tensor:
    """The gradient of the layer's input from that of its map."""
    module: Any = stage.module
    if isinstance(module, nn.Linear):
        return delta @ weight
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        value = torch.zeros(size, dtype=delta.dtype, device=delta.device, requires_grad=True)
        with torch.enable_grad():
            mapped = applied(stage, value, weight, groups)
        return torch.autograd.grad(mapped, value, delta)[0]
    back = _CONVOLVE_BACK[weight.ndim]
    out: Tensor = back(
        size, weight, delta.contiguous(), module.stride, module.padding, module.dilation, groups
    )
    return out


def _gradients(out: Tensor, wanted: Sequence[Tensor], gradient: Tensor) -> tuple[Tensor, ...]:
    if not wanted:
        return ()
    found = torch.autograd.grad(out, wanted, gradient, retain_graph=True, allow_unused=True)
    return tuple(
        torch.zeros_like(asked) if each is None else each
        for each, asked in zip(found, wanted, strict=True)
    )
