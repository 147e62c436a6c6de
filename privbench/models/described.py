"""Python objects as networks-as-data: classes by their import name, trained modules by their parts."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from privbench.contract import Net, Spec
from privbench.errors import UsageError

PLAIN = (int, float, str, bool, type(None))


def as_net(model: type[nn.Module] | Callable[[], nn.Module] | nn.Module | Net) -> Net:
    """A network as data.

    Args:
        model: a class or factory that needs no arguments and can be imported by name; or a module,
            whose weights are kept. A module is taken apart into the arguments of its constructor,
            read from attributes of the same name; ``nn.Sequential`` into its parts.

    Raises:
        UsageError: it cannot be named, or not be rebuilt from its attributes.
    """
    if isinstance(model, Net):
        return model
    if isinstance(model, nn.Module):
        return _rebuilt(model)
    if not callable(model):
        raise UsageError(f"model= takes a class, a factory or a module; got {type(model).__name__}")
    return Net(Spec(_name(model)))


def sequential(parts: Mapping[str, Any]) -> nn.Sequential:
    """The ``nn.Sequential`` of named parts, each ``[import name, arguments]``.

    Raises:
        PluginError: a part cannot be imported.
    """
    built = ((name, Spec(target, arguments).build()) for name, (target, arguments) in parts.items())
    return nn.Sequential(OrderedDict(built))


def _rebuilt(module: nn.Module) -> Net:
    """A module as data, tried at once: the copy must hold the same weights."""
    net = Net(_spec(module)).holding(module)
    try:
        copy = net.module()
    except Exception as cause:  # whatever its constructor raises when it is called anew
        raise UsageError(_advice(module, str(cause))) from cause
    state = copy.state_dict()
    if any(not torch.equal(state[name], tensor) for name, tensor in (net.weights or {}).items()):
        raise UsageError(_advice(module, "the copy holds other weights"))
    return net


def _spec(module: nn.Module) -> Spec:
    """Import name and arguments of a module."""
    if type(module) is nn.Sequential:
        children = {name: _spec(child) for name, child in module.named_children()}
        parts = {name: [spec.target, dict(spec.kwargs)] for name, spec in children.items()}
        return Spec("privbench.models.described.sequential", {"parts": parts})
    arguments = {}
    for parameter in inspect.signature(type(module)).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(module, parameter.name, parameter.default)
        if parameter.name == "bias" and not isinstance(value, bool):
            value = value is not None
        if value is parameter.empty:
            raise UsageError(_advice(module, f"it keeps no attribute '{parameter.name}'"))
        if value != parameter.default:
            arguments[parameter.name] = _plain(value, module, parameter.name)
    return Spec(_name(type(module)), arguments)


def _plain(value: Any, module: nn.Module, name: str) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item, module, name) for item in value]
    if not isinstance(value, PLAIN):
        raise UsageError(
            _advice(module, f"its '{name}' is a {type(value).__name__}, not plain data")
        )
    return value


def _name(thing: Any) -> str:
    """The import name of a class or function."""
    name = getattr(thing, "__qualname__", "")
    if not name or "<" in name or "." in name:
        raise UsageError(
            f"'{name or thing}' has no import name, so that no other process can build it; define "
            "it at the top level of a module, as 'class MyNet(torch.nn.Module)' or 'def my_net()'"
        )
    return f"{thing.__module__}.{name}"


def _advice(module: nn.Module, why: str) -> str:
    kind = type(module).__name__
    return (
        f"a {kind} cannot be rebuilt from its attributes ({why}); give its constructor defaults, or "
        "keep each argument as an attribute of the same name, or hand over "
        "privbench.contract.Net(Spec('module.Name', {...})).holding(model)"
    )
