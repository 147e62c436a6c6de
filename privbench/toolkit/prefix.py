"""The part of a network before what a seat sees, as a function of the input."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from privbench.contract import Layer, Topology, Weights, traced
from privbench.errors import NotApplicable
from privbench.toolkit.chain import chain_of
from privbench.toolkit.sets import Many, over_sets

State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Prefix:
    """A network up to one layer, with the weights of one step.

    Args:
        layer: the layer where it ends.
        module: the truncated network; its own parameter values are of no meaning.
        state: the values to use instead, by their names in the whole network's state dict.
    """

    layer: Layer
    module: nn.Module
    state: State

    def on(self, device: str) -> Prefix:
        """The same, with its weights on a device."""
        state = {name: tensor.to(device) for name, tensor in self.state.items()}
        return replace(self, state=state)

    def __call__(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n channels ..."]:
        """What travels from the layer for these inputs, on the inputs' device."""
        state = {name: tensor.to(x.device) for name, tensor in self.state.items()}
        value: Tensor = torch.func.functional_call(self.module, state, (x,))
        return value.reshape(len(x), *self.layer.shape)


@dataclass(frozen=True, eq=False)
class StackedPrefix:
    """The same prefix with several sets of weights, applied at once.

    Args:
        stacked: tensors with a leading axis over the sets.
    """

    layer: Layer
    module: nn.Module
    stacked: State

    def __call__(self, x: Float[Tensor, "sets n ..."]) -> Float[Tensor, "sets n channels ..."]:
        """What travels from the layer for inputs ``x[s]`` under weights number ``s``."""
        value = self._function(x.shape[2:], x.device.type)(self.stacked, x)
        return value.reshape(*x.shape[:2], *self.layer.shape)

    @lru_cache(maxsize=1)  # noqa: B019 - it lives as long as one descent
    def _function(self, shape: torch.Size, device: str) -> Many:
        sets = len(next(iter(self.stacked.values()), ()))
        if sets > 1 or device != "cpu" or chain_of(self.module, shape) is not None:
            return over_sets(self.module, shape)
        return self._alone

    def _alone(self, stacked: State, x: Float[Tensor, "1 n ..."]) -> Tensor:
        """Under the only set there is: without the detour of a vmap over one."""
        state = {name: tensor[0] for name, tensor in stacked.items()}
        value: Tensor = torch.func.functional_call(self.module, state, (x[0],))
        return value


def stacks(prefix: Prefix, shape: Sequence[int], device: str) -> bool:
    """Is a stack of such prefixes quicker than one after another?

    On a CPU only where they are chains of linear layers: a convolution under many sets of weights is
    one in groups, which takes longer there.

    Args:
        shape: of one input.
    """
    return not device.startswith("cpu") or chain_of(prefix.module, shape) is not None


def stack(prefixes: Sequence[Prefix], device: str = "cpu") -> StackedPrefix:
    """Prefixes of one layer of one architecture as one function over all of them."""
    first = prefixes[0]
    stacked = {
        name: torch.stack([prefix.state[name] for prefix in prefixes]).to(device)
        for name in first.state
    }
    return StackedPrefix(first.layer, first.module, stacked)


class Prefixes:
    """Every prefix that a seat can compute: traced once a layer, with the weights that it holds.

    Args:
        topology: of the run.
        weights: those of the seat (``view.weights``), of one or many steps.
        like: prefixes of another seat of the same run; its traces are used again.
    """

    def __init__(
        self, topology: Topology, weights: Sequence[Weights], like: Prefixes | None = None
    ) -> None:
        self._topology = topology
        self._held: dict[str, dict[int, list[Weights]]] = {}
        for held in weights:
            for name in held.tensors:
                self._held.setdefault(name, {}).setdefault(held.step, []).append(held)
        self._modules: dict[str, nn.Module] = like._modules if like is not None else {}

    def at(self, layer: str, step: int) -> Prefix:
        """The network up to the cut of ``layer``, with the weights nearest to ``step``.

        A tensor that the seat does not hold at ``step`` is taken from the latest earlier step, or,
        where there is none, from the first later one.

        Raises:
            NotApplicable: the seat lacks weights of a layer on the way.
        """
        state = {}
        for name, like in self._module(layer).state_dict().items():
            if not like.is_floating_point():
                state[name] = like  # counters of batches: no output depends on them
                continue
            found = self._nearest(name, step, like)
            if found is None:
                raise NotApplicable(
                    f"the seat sees layer '{layer}' but does not know '{name}' on the way to it; "
                    "choose a host that the stem feeds, or a threat that grants prefix_weights"
                )
            state[name] = found
        return Prefix(self._topology.layer(layer), self._module(layer), state)

    def asked(self, layer: str) -> tuple[str, ...]:
        """Names of the tensors on the way to ``layer``, counters of batches aside."""
        state = self._module(layer).state_dict()
        return tuple(name for name, tensor in state.items() if tensor.is_floating_point())

    def _nearest(self, name: str, step: int, like: Tensor) -> Tensor | None:
        steps = sorted(self._held.get(name, {}))
        after = bisect_right(steps, step)
        for known in (*reversed(steps[:after]), *steps[after:]):
            found = self._whole(name, known, like)
            if found is not None:
                return found
        return None

    def _whole(self, name: str, step: int, like: Tensor) -> Tensor | None:
        """A tensor as held at one step, put together from slices where these cover it."""
        parts = self._held[name][step]
        whole = next((held.tensors[name] for held in parts if held.units is None), None)
        if whole is not None:
            return whole
        found = torch.empty(like.shape, dtype=parts[0].tensors[name].dtype)
        known = torch.zeros(like.shape, dtype=torch.bool)
        for held in parts:
            at = _places(held, like)
            if at is not None and found[at].shape == held.tensors[name].shape:
                found[at], known[at] = held.tensors[name], True
        return found if bool(known.all()) else None

    def _module(self, layer: str) -> nn.Module:
        if layer not in self._modules:
            recorded = traced(self._topology.net.module())
            self._modules[layer] = truncated(recorded, self._topology.layer(layer).cut)
        return self._modules[layer]


def _places(held: Weights, like: Tensor) -> tuple[Tensor, ...] | None:
    """Where in a tensor a slice's rows and columns are; None = it has no rows."""
    if not like.ndim:
        return None
    units = torch.tensor(held.units)
    if held.columns is None or like.ndim < 2:
        return (units,)
    return units[:, None], torch.tensor(held.columns)


def prefix(topology: Topology, weights: Sequence[Weights], layer: str, step: int) -> Prefix:
    """The network up to ``layer`` with a seat's weights nearest to ``step``; see ``Prefixes.at``.

    Returns:
        a function from inputs ``(n, *shape)`` to what travels, ``(n, channels, ...)``.
    """
    return Prefixes(topology, weights).at(layer, step)


def untrained(topology: Topology, layer: Layer, rng: torch.Generator) -> nn.Module:
    """The network up to a layer with weights of its own: its architecture is public, its weights are not.

    Returns:
        inputs ``(n, *shape)`` to what travels, before it takes the layer's shape.
    """
    whole = topology.net.initialised(rng).module()
    return truncated(traced(whole), layer.cut)


def truncated(recorded: fx.GraphModule, cut: str) -> fx.GraphModule:
    """A traced network that ends at the node ``cut`` and holds only what leads there."""
    end = next((node for node in recorded.graph.nodes if node.name == cut), None)
    if end is None:
        names = ", ".join(node.name for node in recorded.graph.nodes)
        raise NotApplicable(f"the network has no node '{cut}'; its nodes are {names}")
    needed, waiting = {end}, [end]
    while waiting:
        for before in waiting.pop().all_input_nodes:
            if before not in needed:
                needed.add(before)
                waiting.append(before)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in recorded.graph.nodes:
        if node in needed or node.op == "placeholder":
            copies[node] = graph.node_copy(node, lambda before: copies[before])
    graph.output(copies[end])
    module = fx.GraphModule(recorded, graph)
    module.delete_all_unused_submodules()
    return module.eval()
