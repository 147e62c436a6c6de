"""Networks that are plain chains of linear layers, seen as data, so that copies can be stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional as F

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Hardtanh,
)  # fmt: skip
"""Activations that treat every number alone and draw nothing: no Dropout, no normalisation."""

_FUNCTIONS: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU, torch.relu: nn.ReLU, torch.tanh: nn.Tanh, F.tanh: nn.Tanh,
    torch.sigmoid: nn.Sigmoid, F.sigmoid: nn.Sigmoid,
}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """One linear layer of a chain and the activation after it.

    Args:
        weight: name of its ``(out, in)`` matrix in the state dict.
        bias: name of its ``(out,)`` vector, None = it has none.
        activation: elementwise module, None = the value goes on as it is.
    """

    weight: str
    bias: str | None
    activation: nn.Module | None = None


def chain_of(module: nn.Module, shape: Sequence[int]) -> tuple[Link, ...] | None:
    """The linear layers of ``module`` in order, or None where it is no plain chain of them.

    A chain flattens its input (unless samples are vectors), then alternates linear layers and
    elementwise activations; each layer is used once; no buffers and no other parameters.

    Args:
        shape: of one sample.
    """
    if list(module.buffers()) or any(p.dtype != torch.float32 for p in module.parameters()):
        return None
    try:
        graph = fx.symbolic_trace(module).graph
    except (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError, KeyError):
        return None  # control flow that depends on the data: no chain
    links = _walk(module, graph, flat=len(shape) == 1)
    if not links:
        return None
    names = [name for link in links for name in (link.weight, link.bias) if name is not None]
    return links if sorted(names) == sorted(dict(module.named_parameters())) else None


def _walk(module: nn.Module, graph: fx.Graph, flat: bool) -> tuple[Link, ...] | None:
    links: list[Link] = []
    before: fx.Node | None = None
    for node in graph.nodes:
        if node.op == "placeholder" and before is None:
            before = node
            continue
        if node.all_input_nodes != [before]:
            return None
        before = node
        if node.op == "output":
            return tuple(links) if node.args == (node.all_input_nodes[0],) else None
        step = _step(module, node)
        if isinstance(step, nn.Flatten):
            flat = True
        elif isinstance(step, nn.Linear) and flat:
            links.append(Link(f"{node.target}.weight", _bias(step, str(node.target))))
        elif isinstance(step, ELEMENTWISE) and links and links[-1].activation is None:
            links[-1] = Link(links[-1].weight, links[-1].bias, step)
        elif not isinstance(step, nn.Identity):
            return None
    return None


def _step(module: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that a node is or stands for; None = something else."""
    if node.op == "call_module":
        found = module.get_submodule(str(node.target))
        exact = (nn.Linear, nn.Flatten, nn.Identity, *ELEMENTWISE)
        whole = not isinstance(found, nn.Flatten) or (found.start_dim, found.end_dim) == (1, -1)
        return found if type(found) in exact and whole else None
    if node.op == "call_function" and node.target in _FUNCTIONS and len(node.args) == 1:
        return _FUNCTIONS[node.target]()
    flattens = node.target in (torch.flatten, "flatten") and node.args[1:] == (1,)
    return nn.Flatten() if flattens and not node.kwargs else None


def _bias(layer: nn.Linear, name: str) -> str | None:
    return None if layer.bias is None else f"{name}.bias"


def slope(
    activation: nn.Module | None, before: Tensor, after: Tensor, delta: Tensor
) -> Float[Tensor, "*shape"]:
    """The gradient before an activation, from ``delta`` after it.

    Args:
        before: its input; looked at only where ``keeps_input``.
        after: its output.
    """
    if activation is None:
        return delta
    if isinstance(activation, nn.ReLU):
        return torch.ops.aten.threshold_backward(delta, after, 0)
    if isinstance(activation, nn.Tanh):
        return torch.ops.aten.tanh_backward(delta, after)
    if isinstance(activation, nn.Sigmoid):
        return torch.ops.aten.sigmoid_backward(delta, after)
    with torch.enable_grad():
        leaf = before.detach().requires_grad_()
        # cloned, since an activation that works in place must not overwrite what it is given
        (gradient,) = torch.autograd.grad(activation(leaf.clone()), leaf, delta)
    return gradient


def keeps_input(activation: nn.Module | None) -> bool:
    """Must the input of this activation be kept for ``slope``?"""
    return not isinstance(activation, nn.ReLU | nn.Tanh | nn.Sigmoid | None)
