"""Gradients of many losses under one set of weights, and slopes of what depends on them, by layers.

The gradient of a layer's weight is a product of what enters the layer and what comes back to it. So a
slope in gradient space turns into slopes at both, and neither the gradients of weights nor copies of the
weights have to be differentiated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Part:
    """A layer of which a gradient is known.

    Args:
        weight, bias: is it known of them?
    """

    layer: nn.Conv2d | nn.Linear
    weight: bool
    bias: bool


def layers_behind(
    module: nn.Module, names: Sequence[str], x: Float[Tensor, "1 ..."]
) -> tuple[Part, ...] | None:
    """The layers that hold some parameters, in their order; None = not all of them can be treated so.

    They are plain convolutions and linear layers, each used once.

    Args:
        names: of parameters; a layer's stand together.
        x: an input to try with.
    """
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    parts = []
    for owner in owners:
        layer = module.get_submodule(owner)
        if not isinstance(layer, nn.Conv2d | nn.Linear) or not _plain(layer):
            return None
        mine = [name.rpartition(".")[2] for name in names if name.rpartition(".")[0] == owner]
        parts.append(Part(layer, "weight" in mine, "bias" in mine))
    if [n for p, o in zip(parts, owners, strict=True) for n in _names(p, o)] != list(names):
        return None
    parameters = [id(each) for each in module.parameters()]
    tied = len(parameters) != len([*module.named_parameters(remove_duplicate=False)])
    return tuple(parts) if not tied and _once(module, [part.layer for part in parts], x) else None


def _once(module: nn.Module, layers: Sequence[nn.Module], x: Tensor) -> bool:
    """Is each layer used once, and is what enters and leaves it never written over?"""
    calls: list[nn.Module] = []
    seen: list[tuple[Tensor, int]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(layer)
        seen.extend((each, each._version) for each in (inputs[0], output))

    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    once = all(sum(called is layer for called in calls) == 1 for layer in layers)
    return once and all(each._version == version for each, version in seen)


class Layerwise:
    """Sets of inputs under one set of weights: gradients of each set's loss, and slopes behind them.

    Convolutions are products with unfolded maps, which the gradients of their weights need anyway.

    Args:
        module: with its weights; it is changed.
        parts: the layers that hold the parameters whose gradients are meant.
    """

    def __init__(self, module: nn.Module, parts: Sequence[Part]) -> None:
        self._module, self._parts = module, parts
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        module.requires_grad_(False)
        for part in parts:
            if isinstance(part.layer, nn.Linear):
                part.layer.forward = partial(self._linear, part.layer)  # type: ignore[method-assign]
            else:
                part.layer.forward = partial(self._convolved, part.layer)  # type: ignore[method-assign]

    def forward(self, x: Float[Tensor, "sets n ..."]) -> Float[Tensor, "sets n classes"]:
        """What the network says of inputs that need a slope."""
        self._sets = len(x)
        said: Tensor = self._module(x.flatten(0, 1))
        return said.unflatten(0, x.shape[:2])

    def gradient(self, loss: Float[Tensor, ""]) -> list[Float[Tensor, "sets _p"]]:
        """Each set's gradient, by parameter."""
        kept = [self._kept[part.layer] for part in self._parts]
        self._backs = torch.autograd.grad(loss, [after for _, after in kept], create_graph=True)
        self._products: list[tuple[Tensor, Tensor]] = []
        found = []
        with torch.no_grad():
            for part, (before, _), back in zip(self._parts, kept, self._backs, strict=True):
                entered, returned = self._together(before), self._together(back)
                self._products.append((entered, returned))
                if part.weight:
                    found.append(torch.bmm(returned, entered.transpose(1, 2)).flatten(1))
                if part.bias:
                    found.append(returned.sum(dim=2))
        return found

    def pushed(
        self, slope: Float[Tensor, "sets p"], x: Tensor, logits: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Slopes at inputs (and at logits of labels) of whatever has this slope at the gradients."""
        ends, slopes, start = [], [], 0
        for part, back, (entered, returned) in zip(
            self._parts, self._backs, self._products, strict=True
        ):
            before, _ = self._kept[part.layer]
            outputs, features = returned.shape[1], entered.shape[1]
            if part.weight:
                stop = start + outputs * features
                weight = slope[:, start:stop].unflatten(1, (outputs, features))
                weight = weight.contiguous()  # else bits depend on how many sets there are
                start = stop
                at_back = _product(weight, entered)
                ends.append(before)
                slopes.append(self._apart(_product(weight.transpose(1, 2), returned), before))
            if part.bias:
                bias = slope[:, start : start + outputs, None]
                at_back = at_back.add_(bias) if part.weight else bias.expand_as(returned)
                start += outputs
            ends.append(back)
            slopes.append(self._apart(at_back, back))
        wanted = (x,) if logits is None else (x, logits)
        found = torch.autograd.grad(ends, wanted, slopes)
        return found[0], found[1] if logits is not None else None

    def _linear(self, layer: nn.Linear, x: Float[Tensor, "n ... f"]) -> Float[Tensor, "n ... o"]:
        """A product for each input, so that bits do not depend on those beside it."""
        rows = x.reshape(len(x), -1, x.shape[-1])
        value = torch.bmm(rows, layer.weight.t().expand(len(rows), -1, -1))
        value = value if layer.bias is None else value + layer.bias
        after = value.transpose(1, 2)
        self._kept[layer] = (rows.transpose(1, 2), after)
        return after.transpose(1, 2).reshape(*x.shape[:-1], -1)

    def _convolved(self, layer: nn.Conv2d, x: Float[Tensor, "n c h w"]) -> Tensor:
        sizes = _sizes(layer)
        entered = _Unfolded.apply(x, sizes)
        weight = layer.weight.flatten(1).expand(len(x), -1, -1)
        if layer.bias is None:
            after = torch.bmm(weight, entered)
        else:
            after = torch.baddbmm(layer.bias[:, None], weight, entered)
        self._kept[layer] = (entered, after)
        return after.unflatten(2, (sizes.along(x.shape[2], 0), -1))

    def _together(self, each: Float[Tensor, "all f here"]) -> Float[Tensor, "sets f places"]:
        """The places of all inputs of a set side by side."""
        if len(each) == self._sets:
            return each
        parted = each.unflatten(0, (self._sets, -1)).transpose(1, 2)
        return parted.reshape(self._sets, each.shape[1], -1)

    def _apart(self, sets: Float[Tensor, "sets f places"], like: Tensor) -> Tensor:
        """The way back."""
        if len(like) == self._sets:
            return sets
        parted = sets.unflatten(2, (len(like) // self._sets, -1)).transpose(1, 2)
        return parted.reshape(like.shape)


@dataclass(frozen=True)
class _Sizes:
    """What decides where a convolution looks."""

    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    stride: tuple[int, ...]

    def along(self, size: int, axis: int) -> int:
        """Places of its output along an axis."""
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        return (size + 2 * self.padding[axis] - reach - 1) // self.stride[axis] + 1


class _Unfolded(torch.autograd.Function):
    """``F.unfold``, by one strided copy: half the time, to the same bits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: _Sizes) -> Tensor:
        ctx.sizes, ctx.map = sizes, x.shape[2:]
        return _copied(x, sizes)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _Folded.apply(slope, ctx.sizes, ctx.map), None


class _Folded(torch.autograd.Function):
    """The slope of ``_Unfolded``, which can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, unfolded: Tensor, sizes: _Sizes, size: tuple[int, int]) -> Tensor:
        ctx.sizes = sizes
        return F.fold(unfolded, size, sizes.kernel, sizes.dilation, sizes.padding, sizes.stride)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return _Unfolded.apply(slope, ctx.sizes), None, None


def _copied(x: Float[Tensor, "n c h w"], sizes: _Sizes) -> Float[Tensor, "n f places"]:
    height, width = sizes.padding
    padded = F.pad(x, (width, width, height, height)).contiguous()
    one, channel, row, column = padded.stride()
    places = (sizes.along(x.shape[2], 0), sizes.along(x.shape[3], 1))
    down, along = row * sizes.dilation[0], column * sizes.dilation[1]
    steps = (row * sizes.stride[0], column * sizes.stride[1])
    every = padded.as_strided(
        (*x.shape[:2], *sizes.kernel, *places), (one, channel, down, along, *steps)
    )
    return every.reshape(len(x), -1, places[0] * places[1])


def _sizes(layer: nn.Conv2d) -> _Sizes:
    if isinstance(layer.padding, str):
        raise TypeError("a padding in words was let through")
    return _Sizes(layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def _product(one: Float[Tensor, "sets a b"], other: Float[Tensor, "sets b c"]) -> Tensor:
    if other.shape[2] > 1:
        return torch.bmm(one, other)
    return (one * other.transpose(1, 2)).sum(dim=2, keepdim=True)  # whose bits stay what they are


def _plain(layer: nn.Conv2d | nn.Linear) -> bool:
    if type(layer) is nn.Linear:
        return True
    return (
        type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _names(part: Part, owner: str) -> list[str]:
    found = [f"{owner}.weight"] * part.weight + [f"{owner}.bias"] * part.bias
    return [name.lstrip(".") for name in found]
