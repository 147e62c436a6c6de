"""Which operations a chain may hold beside its layers, and how a run of them is executed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

CONVOLUTIONS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

_ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.CELU, nn.Dropout, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity,
    nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.Tanh, nn.Threshold,
)  # fmt: skip
_PER_CHANNEL: tuple[type[nn.Module], ...] = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
    nn.AvgPool1d, nn.AvgPool2d, nn.Dropout1d, nn.Dropout2d, nn.Flatten, nn.MaxPool1d, nn.MaxPool2d,
    nn.ZeroPad1d, nn.ZeroPad2d,
)  # fmt: skip
_LAST: tuple[type[nn.Module], ...] = (nn.LogSoftmax, nn.Softmax)  # after the tail, at the owner

_FUNCTIONS: Mapping[str, frozenset[Any]] = MappingProxyType(
    {
        "elementwise": frozenset(
            {
                F.celu, F.dropout, F.elu, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh,
                F.leaky_relu, F.logsigmoid, F.mish, F.relu, F.relu6, F.selu, F.silu, F.sigmoid,
                F.softplus, F.softsign, F.tanh, torch.relu, torch.sigmoid, torch.tanh,
            }
        ),
        "per_channel": frozenset(
            {
                F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.avg_pool1d,
                F.avg_pool2d, F.dropout2d, F.max_pool1d, F.max_pool2d, torch.flatten,
                torch.max_pool2d,
            }
        ),
        "last": frozenset({F.log_softmax, F.softmax, torch.log_softmax, torch.softmax}),
    }
)  # fmt: skip
_METHODS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "elementwise": frozenset({"relu", "relu_", "sigmoid", "tanh", "contiguous"}),
        "per_channel": frozenset({"flatten", "view", "reshape"}),
        "last": frozenset({"log_softmax", "softmax"}),
    }
)


def sort_of(root: nn.Module, node: fx.Node) -> str | None:
    """What a node of a trace is.

    ``layer`` (a plain linear layer or convolution), ``elementwise``, ``per_channel`` (pooling,
    reshaping: channels keep apart), ``last`` (softmax), or None = something that no chain holds.
    """
    if node.op == "call_module":
        kind = type(root.get_submodule(str(node.target)))
        if kind is nn.Linear or kind in CONVOLUTIONS:
            return "layer"
        groups = (("elementwise", _ELEMENTWISE), ("per_channel", _PER_CHANNEL), ("last", _LAST))
        return next((name for name, kinds in groups if kind in kinds), None)
    if node.op == "call_function":
        return next((name for name, found in _FUNCTIONS.items() if node.target in found), None)
    if node.op == "call_method":
        return next((name for name, found in _METHODS.items() if node.target in found), None)
    return None


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
    """Does the node overwrite what it is given?"""
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    return bool(node.kwargs.get("inplace")) or str(node.target).endswith("_")


@dataclass(frozen=True, eq=False)
class Piece:
    """Operations in a row, each fed by the one before; calls the network's own modules.

    Args:
        calls: from a value to the next.
        in_place: one of them overwrites what it is given, so the first is handed a copy.
    """

    calls: tuple[Callable[[Tensor], Tensor], ...] = ()
    in_place: bool = False

    def __call__(self, value: Tensor) -> Tensor:
        if self.in_place:
            value = value.clone()
        for call in self.calls:
            value = call(value)
        return value


def call_of(root: nn.Module, node: fx.Node) -> Callable[[Tensor], Tensor]:
    """A node as a function of the one value that reaches it."""

    def run(value: Tensor) -> Tensor:
        def fill(given: fx.Node) -> Any:
            return len(value) if counts_rows(given) else value

        args = fx.node.map_arg(node.args, fill)
        kwargs = fx.node.map_arg(node.kwargs, fill)
        if node.op == "call_module":
            out = root.get_submodule(str(node.target))(*args, **kwargs)
        elif node.op == "call_method":
            out = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            out = cast(Callable[..., Any], node.target)(*args, **kwargs)
        return cast(Tensor, out)

    return run
