"""What the calls of a traced network do to channels, and how a run of them is executed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from privbench.errors import UsageError
from privbench.slicenet.noise import Noise

CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.CELU, nn.Dropout, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity,
    nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.Tanh, nn.Threshold,
)  # fmt: skip
_PER_CHANNEL: tuple[type[nn.Module], ...] = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    nn.AvgPool1d, nn.AvgPool2d, nn.Dropout1d, nn.Dropout2d, nn.Flatten, nn.MaxPool1d, nn.MaxPool2d,
    nn.PReLU, nn.ZeroPad1d, nn.ZeroPad2d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.GroupNorm,
    *BATCH_NORMS,
)  # fmt: skip

_FUNCTIONS: Mapping[str, frozenset[Any]] = MappingProxyType(
    {
        "elementwise": frozenset(
            {
                F.celu, F.dropout, F.elu, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh,
                F.leaky_relu, F.logsigmoid, F.mish, F.relu, F.relu6, F.selu, F.silu, F.sigmoid,
                F.softplus, F.softsign, F.tanh, torch.relu, torch.sigmoid, torch.tanh, torch.exp,
                torch.abs, torch.square, operator.neg,
            }
        ),
        "per_channel": frozenset(
            {
                F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.avg_pool1d,
                F.avg_pool2d, F.dropout2d, F.max_pool1d, F.max_pool2d, torch.flatten,
                torch.max_pool2d, torch.mean, torch.amax, torch.sum,
            }
        ),
        "join": frozenset(
            {
                operator.add, operator.iadd, operator.mul, operator.imul, operator.sub,
                operator.isub, operator.truediv, torch.add, torch.mul, torch.sub, torch.div,
                torch.maximum, torch.minimum,
            }
        ),
        "cat": frozenset({torch.cat, torch.concat, torch.concatenate}),
    }
)  # fmt: skip
_METHODS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "elementwise": frozenset({"relu", "relu_", "sigmoid", "tanh", "contiguous"}),
        "per_channel": frozenset({"flatten", "view", "reshape", "mean", "amax", "sum"}),
        "join": frozenset({"add", "add_", "mul", "mul_", "sub", "sub_"}),
    }
)
_IN_PLACE = frozenset({operator.iadd, operator.imul, operator.isub})


def sort_of(root: nn.Module, node: fx.Node) -> str | None:
    """What a call seems to be; shapes must confirm it.

    ``layer`` (a plain linear layer or convolution), ``elementwise``, ``per_channel`` (pooling, norms
    over channels or groups of them, reshaping: channels keep apart), ``join`` (element-wise on several
    values), ``cat``, or None = something that is not looked into.
    """
    if node.op == "call_module":
        kind = type(root.get_submodule(str(node.target)))
        if kind is nn.Linear or kind in CONVOLUTIONS:
            return "layer"
        groups = (("elementwise", _ELEMENTWISE), ("per_channel", _PER_CHANNEL))
        return next((name for name, kinds in groups if kind in kinds), None)
    if node.op == "call_function":
        found = next((name for name, calls in _FUNCTIONS.items() if node.target in calls), None)
    elif node.op == "call_method":
        found = next((name for name, calls in _METHODS.items() if node.target in calls), None)
    else:
        return None
    if found == "join" and len(values_of(node)) == 1:
        return "elementwise"  # with a number
    return found


def values_of(node: fx.Node) -> list[fx.Node]:
    """The nodes that a call is fed, without numbers of rows."""
    return [given for given in node.all_input_nodes if not counts_rows(given)]


def counts_rows(node: fx.Node) -> bool:
    """Is it ``x.size(0)`` or ``x.shape[0]``: the number of rows, that ``view`` is often given?"""
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,)
    if node.op != "call_function" or node.target is not operator.getitem or node.args[1] != 0:
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and _is_shape(source)


def is_shape(node: fx.Node) -> bool:
    """Is it ``x.shape`` or ``x.size()``, of which only the first entry is looked at?"""
    return _is_shape(node) and all(counts_rows(user) for user in node.users)


def _is_shape(node: fx.Node) -> bool:
    if node.op == "call_method" and node.target == "size":
        return len(node.args) == 1
    return node.op == "call_function" and node.target is getattr and node.args[1] == "shape"


def works_in_place(root: nn.Module, node: fx.Node) -> bool:
    """Does the call overwrite what it is given?"""
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    named = isinstance(node.target, str) and node.target.endswith("_")
    return bool(node.kwargs.get("inplace")) or named or node.target in _IN_PLACE


def border_of(module: nn.Module | None, channels: int) -> int:
    """Channels that must stay together because of one operation: 1, or a norm's group, or all."""
    if isinstance(module, nn.GroupNorm):
        return channels // module.num_groups
    if isinstance(module, nn.PReLU) and module.num_parameters == 1 < channels:
        return channels
    return 1


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a traced network, as a function of the values that reach it.

    Args:
        node: its name in the trace.
        run: from values, in the order of the node's inputs, to its result.
        module: the module that it calls; None = a function or method.
        first: number of its first dropout call in the forward pass.
        dropouts: how many it makes.
    """

    node: str
    run: Callable[..., Any]
    module: nn.Module | None = None
    first: int = 0
    dropouts: int = 0

    def __call__(self, *values: Tensor, noise: Noise | None = None, **where: Any) -> Any:
        if noise is None or not self.dropouts:
            return self.run(*values)
        with noise.at(self.first, **where):
            return self.run(*values)


@dataclass(frozen=True, eq=False)
class Piece:
    """Calls in a row, each fed by the one before.

    Args:
        calls: from a value to the next; they call the network's own modules.
        in_place: one of them overwrites what it is given, so the first is handed a copy.
    """

    calls: tuple[Call, ...] = ()
    in_place: bool = False

    def __call__(self, value: Tensor, noise: Noise | None = None, **where: Any) -> Tensor:
        if self.in_place:
            value = value.clone()
        for call in self.calls:
            value = call(value, noise=noise, **where)
        return value

    def then(self, call: Call, in_place: bool) -> Piece:
        """The same with one more call."""
        return Piece((*self.calls, call), self.in_place or in_place)

    def border(self, channels: int) -> int:
        """Channels that must stay together because of these operations."""
        return lcm(*(border_of(call.module, channels) for call in self.calls))

    def modules(self) -> tuple[nn.Module, ...]:
        """Modules called, with parameters or without."""
        return tuple(call.module for call in self.calls if call.module is not None)


NOTHING = Piece()


def call_of(root: nn.Module, node: fx.Node, first: int = 0, dropouts: int = 0) -> Call:
    """A node as a function of the values that reach it."""
    fed = values_of(node)
    joins_in_place = len(fed) > 1 and works_in_place(root, node)

    def run(*values: Tensor) -> Any:
        known = dict(zip(fed, values, strict=True))
        if joins_in_place:
            known[fed[0]] = values[0].clone()

        def fill(given: fx.Node) -> Any:
            return len(values[0]) if counts_rows(given) else known[given]

        args = fx.node.map_arg(node.args, fill)
        kwargs = fx.node.map_arg(node.kwargs, fill)
        if node.op == "call_module":
            return root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return cast(Callable[..., Any], node.target)(*args, **kwargs)

    module = root.get_submodule(str(node.target)) if node.op == "call_module" else None
    return Call(node.name, run, module, first, dropouts)


def region_of(
    root: fx.GraphModule, nodes: Sequence[fx.Node], fed: Sequence[fx.Node], result: fx.Node
) -> Callable[..., Tensor]:
    """Nodes in a row as one function of the values that reach them from outside."""
    overwrites = any(works_in_place(root, node) for node in nodes if node.op.startswith("call"))

    def run(*values: Tensor) -> Tensor:
        own = [value.clone() for value in values] if overwrites else values
        known: dict[fx.Node, Any] = dict(zip(fed, own, strict=True))

        def fill(given: fx.Node) -> Any:
            if given not in known:  # a shape asked outside, of a value that all share in its rows
                return len(values[0])
            return known[given]

        for node in nodes:
            args = fx.node.map_arg(node.args, fill)
            kwargs = fx.node.map_arg(node.kwargs, fill)
            if node.op == "get_attr":
                known[node] = _attribute(root, str(node.target))
            elif node.op == "call_module":
                known[node] = root.get_submodule(str(node.target))(*args, **kwargs)
            elif node.op == "call_method":
                known[node] = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            else:
                known[node] = cast(Callable[..., Any], node.target)(*args, **kwargs)
        return cast(Tensor, known[result])

    return run


def _attribute(root: nn.Module, path: str) -> Any:
    """A parameter or buffer by its name."""
    owner, _, name = path.rpartition(".")
    return getattr(root.get_submodule(owner), name)


def check_rows_apart(module: nn.Module, setting: str, part_of_it: str) -> None:
    """Refuse what mixes rows, where some of a batch are computed alone.

    Raises:
        UsageError: the network has a batch norm.
    """
    for name, part in module.named_modules():
        if isinstance(part, BATCH_NORMS):
            raise UsageError(
                f"{setting}: '{name}' is a batch norm, and no {part_of_it} has all rows of a step, so its "
                f"statistics would not be those of the batch; leave {setting.partition('=')[0]} out, or "
                "choose a model with group norm (torch.nn.GroupNorm)"
            )
