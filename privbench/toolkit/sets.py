"""One network under many sets of weights at once, quick for chains of linear layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.toolkit.chain import Link, chain_of

State = Mapping[str, Tensor]

Many = Callable[[State, Tensor], Tensor]
"""Stacked tensors by name and inputs ``(sets, n, *shape)`` to outputs ``(sets, n, ...)``."""


def over_sets(module: nn.Module, shape: Sequence[int], sets: int = 2) -> Many:
    """``module`` as a function of stacked weights: output number ``s`` is under weights number ``s``.

    Chains of linear layers are batched matrix products, which a CPU does several times faster than
    the general way (functional_call under vmap), to the same numbers up to rounding.

    Args:
        shape: of one input.
        sets: how many there will be; one is a plain call, which vmap would make three times slower.
    """
    links = chain_of(module, shape)
    if links is None:
        return _alone(module) if sets == 1 else _mapped(module)
    return lambda state, x: _chained(links, state, x)


def _chained(
    links: Sequence[Link], state: State, x: Float[Tensor, "sets n ..."]
) -> Float[Tensor, "sets n out"]:
    value = x.flatten(2)
    for link in links:
        weight = state[link.weight].transpose(1, 2)
        if link.bias is None:
            value = torch.bmm(value, weight)
        else:
            value = torch.baddbmm(state[link.bias][:, None], value, weight)
        value = value if link.activation is None else link.activation(value)
    return value


def _alone(module: nn.Module) -> Many:
    def one(state: State, x: Tensor) -> Tensor:
        first = {name: tensor[0] for name, tensor in state.items()}
        value: Tensor = torch.func.functional_call(module, first, (x[0],))
        return value[None]

    return one


def _mapped(module: nn.Module) -> Many:
    def one(state: State, x: Tensor) -> Tensor:
        value: Tensor = torch.func.functional_call(module, dict(state), (x,))
        return value

    return lambda state, x: torch.func.vmap(one)(dict(state), x)
