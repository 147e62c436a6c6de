"""Gradients that flow back through a cut, row by row: as a seat saw them, and of records it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, fx, nn
from torch.nn import functional as F

from privbench.contract import Block, Layer, Message, Samples, View, traced
from privbench.toolkit.traffic import places


def slopes_of_victims(view: View) -> list[Block]:
    """Of each layer, deepest first, the gradients seen of victims, and of own rows the same units.

    What several devices sent of the same units is added up: each consumer of a block tells its part.
    Layers of which no victim's gradient was seen are left out.
    """
    own = view.own.rows if view.own is not None else torch.empty(0, 2, dtype=torch.int64)
    found = []
    for layer in reversed(view.topology.layers):
        messages = [m for m in view.select("gradient") if m.layer == layer.name]
        if messages:
            block = _added(messages, own, layer)
            if len(block.rows) and bool((places(block.rows, view.victims) >= 0).any()):
                found.append(block)
    return found


def slopes_at(module: nn.Module, layer: Layer, samples: Samples) -> Float[Tensor, "n channels ..."]:
    """The gradient of each record's loss with respect to what travels from a layer.

    Args:
        module: the whole network, with the weights in question, in eval mode.
        samples: with labels.

    Raises:
        ValueError: the records have no labels.
    """
    if samples.y is None:
        raise ValueError("a loss needs labels")
    walk = _Walk(traced(module), layer.cut)
    with torch.enable_grad():
        loss = F.cross_entropy(walk.run(samples.x), samples.y, reduction="sum")
        (slope,) = torch.autograd.grad(loss, walk.value)
    return slope.detach().reshape(len(samples), *layer.shape)


class _Walk(fx.Interpreter):
    """A forward pass that keeps one value, to differentiate by."""

    def __init__(self, recorded: fx.GraphModule, cut: str) -> None:
        super().__init__(recorded)
        self._cut = cut
        self.value = torch.empty(0)

    def run_node(self, n: fx.Node) -> object:
        """As without, but the value at the cut starts a graph of its own."""
        found = super().run_node(n)
        if n.name == self._cut and isinstance(found, Tensor):
            self.value = found = found.detach().requires_grad_()
        return found


def _added(messages: Sequence[Message], own: Int64[Tensor, "m 2"], layer: Layer) -> Block:
    """All rows of which each unit that was seen of a stranger's row was seen."""
    rows = torch.unique(torch.cat([_named(message) for message in messages]), dim=0)
    foreign = places(sorted_rows(own), rows) < 0
    whole = torch.zeros(len(rows), layer.channels, *layer.shape[1:])
    seen = torch.zeros(len(rows), layer.channels, dtype=torch.bool)
    for message in messages:
        at = places(rows, _named(message))[:, None]
        units = torch.tensor(message.units or range(layer.channels))
        payload = message.payload.float().reshape(len(at), len(units), *layer.shape[1:])
        whole.index_put_((at, units), payload, accumulate=True)
        seen[at, units] = True
    kept = seen[foreign].any(dim=0)
    full = seen[:, kept].all(dim=1) & bool(kept.any())
    units = kept.nonzero().flatten()
    return Block(layer.name, tuple(units.tolist()), rows[full], whole[full][:, units])


def _named(message: Message) -> Int64[Tensor, "n 2"]:
    return torch.stack([torch.full_like(message.rows, message.step), message.rows], dim=1)


def sorted_rows(rows: Int64[Tensor, "n 2"]) -> Int64[Tensor, "n 2"]:
    """By step and index, as ``places`` asks for."""
    return rows[(rows[:, 0] * (1 << 32) + rows[:, 1]).argsort()]


def whole_network(view: View, step: int) -> Mapping[str, Tensor] | None:
    """Weights of all layers that the seat holds for a step, as near as may be; None = not of all."""
    held = [each for each in view.weights if each.layer == "" and each.units is None]
    if held:
        return min(held, key=lambda each: abs(each.step - step)).tensors
    return view.public.net.weights if view.public.net is not None else None


def network_at(view: View, step: int) -> Mapping[str, Tensor] | None:
    """The same, with what the seat holds of that very step in place: stem and tail, where it took part."""
    whole = whole_network(view, step)
    if whole is None:
        return None
    mine = [each for each in view.weights if each.step == step and each.units is None]
    return {**whole, **{name: t for each in mine for name, t in each.tensors.items()}}


class Slopes:
    """What would flow back through a cut, as a function of the input that can be differentiated again.

    Args:
        module: the whole network, with the weights in question, in eval mode.
        layer: where it is cut.
    """

    def __init__(self, module: nn.Module, layer: Layer) -> None:
        self._recorded, self._layer = traced(module), layer

    def __call__(
        self, x: Float[Tensor, "n ..."], y: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n channels ..."]:
        """The gradient of each input's loss with respect to what travels from the layer."""
        walk = _Pushed(self._recorded, self._layer.cut)
        loss = F.cross_entropy(walk.run(x), y, reduction="sum")
        (slope,) = torch.autograd.grad(loss, walk.push, create_graph=True)
        return slope.reshape(len(x), *self._layer.shape)


class _Pushed(fx.Interpreter):
    """A forward pass in which a zero is added to one value, to differentiate by."""

    def __init__(self, recorded: fx.GraphModule, cut: str) -> None:
        super().__init__(recorded)
        self._cut = cut
        self.push = torch.empty(0)

    def run_node(self, n: fx.Node) -> object:
        """As without, but for the push."""
        found = super().run_node(n)
        if n.name == self._cut and isinstance(found, Tensor):
            self.push = torch.zeros_like(found).requires_grad_()
            found = found + self.push
        return found
