"""A network as the chain of layers that a crowd slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from privbench.contract import Layer
from privbench.errors import UsageError
from privbench.slicenet.ops import (
    Piece,
    call_of,
    counts_rows,
    is_shape,
    sort_of,
    works_in_place,
)

_HELP = (
    "SliceNet cuts chains of linear layers and convolutions, with activations, pooling, dropout "
    "and flatten between them; choose such a model, or regime=centralized or regime=fedavg, which "
    "train any network"
)


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer with the operations around it: from the value that travels in to the one that goes on.

    Running all stages in order computes what the module computes, with the module's own
    parameters, in the same order: bit-identical.

    Args:
        layer: its public description.
        module: the linear layer or convolution.
        opening: operations between the incoming value and the layer (a flatten over channels).
        closing: per-channel operations after it, that travel with its channels.
        map_shape: shape of the layer's own output for one sample, before ``closing``.
        columns: input channels of the weight (its second axis).
        flops: of the layer's forward pass on one sample, 2 a multiply-add.
    """

    layer: Layer
    module: nn.Module
    opening: Piece
    closing: Piece
    map_shape: tuple[int, ...]
    columns: int
    flops: float

    def __call__(self, value: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        return self.closing(self.module(self.opening(value)))


@dataclass(frozen=True, eq=False)
class Graph:
    """A chain of stages. ``places`` in order: stem, body, tail."""

    stages: tuple[Stage, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Public descriptions, in order of the forward pass."""
        return tuple(stage.layer for stage in self.stages)

    def placed(self, place: str) -> tuple[Stage, ...]:
        """Stages of ``stem``, ``body`` or ``tail``."""
        return tuple(stage for stage in self.stages if stage.layer.place == place)

    def __call__(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
        for stage in self.stages:
            x = stage(x)
        return x


def trace(module: nn.Module, shape: Sequence[int], stem: int = 1) -> Graph:
    """The chain that a network is.

    Operations that treat channels apart travel with the layer before them, up to a flatten of
    feature maps: it and what follows belong to the layer behind. So a cut value has shape
    ``(n, channels, ...)``, with as many axes as the layer's own output.

    Args:
        module: with initialised weights, on any device; it is not changed.
        shape: of one sample.
        stem: number of layers, from the first, that owners run on their own samples.

    Raises:
        UsageError: the network is no such chain, has no layer between stem and tail, or ``stem``
            is not at least 1.
    """
    if stem < 1:
        raise UsageError(f"stem={stem}; expected at least 1: samples must not leave their owners")
    runs = _runs(module, _traced(module).graph)
    if len(runs) < stem + 2:
        raise UsageError(
            f"the network has {len(runs)} layers and stem={stem}, so nothing is left for the crowd; "
            f"expected at least {stem + 2} (stem, body, tail): choose a deeper model, for example "
            "model.widths=[64,128,64,10]"
        )
    places = ["stem"] * stem + ["body"] * (len(runs) - stem - 1) + ["tail"]
    weight = next(module.parameters())
    value = torch.zeros(2, *shape, device=weight.device, dtype=weight.dtype)
    stages: list[Stage] = []
    opening = runs[0].before
    was_training = module.training
    module.eval()  # a dropout must not draw while shapes are looked up
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for place, run in zip(places, runs, strict=True):
                stage, value, opening = _stage(module, run, opening, place, stages, value)
                stages.append(stage)
    finally:
        module.train(was_training)
    _check_parameters(module, stages)
    return Graph(tuple(stages))


@dataclass
class _Run:
    """A layer's node, what stands before the first layer, and what follows each."""

    node: fx.Node
    before: list[fx.Node]
    after: list[fx.Node]


def _traced(module: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(module)
    except Exception as cause:  # whatever user code raises when it is fed symbols
        raise UsageError(
            f"the network {type(module).__name__} cannot be traced: {cause}; {_HELP}"
        ) from cause


def _runs(module: nn.Module, graph: fx.Graph) -> list[_Run]:
    """Layers in order, each with the operations after it.

    Raises:
        UsageError: a node has another input than the one before it, or is of a kind unheard of.
    """
    runs: list[_Run] = []
    first: list[fx.Node] = []
    value: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder" and value is None:
            value = node
            continue
        if counts_rows(node) or is_shape(node):
            continue
        fed = [given for given in node.all_input_nodes if not counts_rows(given)]
        if fed != [value]:
            raise UsageError(f"the network is no chain: '{node.name}' joins or branches; {_HELP}")
        if node.op == "output":
            return runs
        sort = sort_of(module, node)
        if sort is None:
            what = node.target
            if node.op == "call_module":
                what = type(module.get_submodule(str(node.target))).__name__
            raise UsageError(f"the network holds '{node.name}' ({what}); {_HELP}")
        if sort == "layer":
            runs.append(_Run(node, first, []))
        else:
            (runs[-1].after if runs else first).append(node)
        value = node
    return runs


def _stage(
    module: nn.Module,
    run: _Run,
    opening: list[fx.Node],
    place: str,
    before: list[Stage],
    value: Tensor,
) -> tuple[Stage, Tensor, list[fx.Node]]:
    """The stage, the value that leaves it, and the operations left to the next stage's opening."""
    name = str(run.node.target)
    layer = module.get_submodule(name)
    opened = _piece(module, opening)
    value = opened(value)
    _check_layer(layer, name, value, before)
    mapped = value = layer(value)
    channels, last = value.shape[1], run.node
    left = list(run.after)
    while left:
        following = call_of(module, left[0])(value.clone())
        sort = sort_of(module, left[0])
        apart = following.shape[1] == channels and following.ndim == value.ndim
        if place != "tail" and (not apart or sort == "last"):
            break
        value, last = following, left.pop(0)
    _check_left(module, left)
    closing = _piece(module, run.after[: len(run.after) - len(left)])
    weight = cast(Tensor, layer.weight)
    described = Layer(
        name=name,
        cut=last.name,
        place=place,
        channels=channels,
        shape=tuple(value.shape[1:]),
        parameters=tuple(f"{name}.{parameter}" for parameter, _ in layer.named_parameters()),
        inputs=(before[-1].layer.name,) if before else (),
    )
    flops = 2.0 * weight[0].numel() * prod(mapped.shape[1:])
    shape = tuple(mapped.shape[1:])
    return Stage(described, layer, opened, closing, shape, weight.shape[1], flops), value, left


def _piece(module: nn.Module, nodes: list[fx.Node]) -> Piece:
    return Piece(
        tuple(call_of(module, node) for node in nodes),
        any(works_in_place(module, node) for node in nodes),
    )


def _check_layer(layer: nn.Module, name: str, value: Tensor, before: list[Stage]) -> None:
    """Refuse layers whose blocks would not be what the rest takes them for."""
    if any(stage.layer.name == name for stage in before):
        raise UsageError(f"the network uses '{name}' more than once; {_HELP}")
    if isinstance(layer, nn.Linear) and value.ndim != 2:
        raise UsageError(
            f"'{name}' is a linear layer on values of shape {tuple(value.shape[1:])}; expected one "
            "axis of features: put a Flatten before it"
        )
    if before and value.shape[1] != _features(before[-1].layer, layer):
        raise UsageError(f"the channels that reach '{name}' were reshaped on the way; {_HELP}")
    if getattr(layer, "groups", 1) != 1:
        raise UsageError(f"'{name}' is a grouped convolution; expected groups=1; {_HELP}")


def _features(before: Layer, layer: nn.Module) -> int:
    """Input channels of a layer behind another."""
    return prod(before.shape) if isinstance(layer, nn.Linear) else before.channels


def _check_left(module: nn.Module, left: list[fx.Node]) -> None:
    """Behind a flatten over channels only what treats every number alone may follow."""
    sorts = [sort_of(module, node) for node in left]
    allowed = ["per_channel", *["elementwise"] * len(left)][: len(left)]
    for node, found, right in zip(left, sorts, allowed, strict=True):
        if found != right:
            raise UsageError(f"'{node.name}' mixes channels in front of a layer; {_HELP}")


def _check_parameters(module: nn.Module, stages: list[Stage]) -> None:
    known = {name for stage in stages for name in stage.layer.parameters}
    stray = sorted(set(module.state_dict()) - known)
    if stray:
        raise UsageError(f"the network has '{stray[0]}' outside its layers; {_HELP}")
