"""Inputs that stand in the gradient of a first linear layer, to be read by division."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.errors import NotApplicable
from privbench.toolkit.updates import State

SMALL = 1e-6  # of the largest bias gradient: below it a ratio is rounding
ALIKE = 1e-3  # root mean square between two ratios that are the same input
OUTSIDE = 1e-2  # how far values of an input may lie outside the range


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """Gradients of the linear layer that reads the input.

    Args:
        weight: mean over inputs of (what returns to a neuron) times the input.
        bias: mean of what returns; None = the layer has none, or it was not seen.
    """

    weight: Float[Tensor, "neurons features"]
    bias: Float[Tensor, " neurons"] | None


def first_linear(module: nn.Module, gradient: State, features: int) -> FirstLayer:
    """The gradients of the network's first layer, in double precision.

    Raises:
        NotApplicable: that layer is not linear on the input, or its gradient was not seen.
    """
    with_weights = [(name, m) for name, m in module.named_modules() if hasattr(m, "weight")]
    name, layer = with_weights[0] if with_weights else ("", module)
    if not isinstance(layer, nn.Linear) or layer.in_features != features:
        raise NotApplicable(
            f"inputs stand in the gradient of a first layer that is linear; this network's is "
            f"{type(layer).__name__} ('{name}'); choose attack=gradient_inversion, or model=mlp"
        )
    if f"{name}.weight" not in gradient:
        raise NotApplicable(
            f"the gradient of the first layer ('{name}.weight') is not among what this seat sees"
        )
    bias = gradient.get(f"{name}.bias")
    return FirstLayer(
        gradient[f"{name}.weight"].double(), None if bias is None else bias.double().flatten()
    )


def single(layer: FirstLayer) -> Float[Tensor, " features"] | None:
    """The only input behind a gradient; None = no neuron was active.

    Every neuron's ratio is the input; they are weighed by how much returned to them.

    Raises:
        NotApplicable: without a bias only the input's direction is told.
    """
    bias = _bias(layer)
    size = bias.square().sum()
    if not float(size):
        return None
    return (bias @ layer.weight / size).float()


def several(layer: FirstLayer, rows: int) -> Float[Tensor, "found features"]:
    """The inputs behind a gradient that some neuron saw alone, surest first.

    A neuron that was active for one input tells that input; one that was active for more tells a
    weighted mean of them. Ratios that occur at several neurons are single inputs; other ratios are taken
    for such where they lie within the range, those farthest from all mixtures' mean first.

    Args:
        rows: most that there can be.

    Raises:
        NotApplicable: without a bias only directions are told.
    """
    bias = _bias(layer)
    active = (bias.abs() > SMALL * bias.abs().max()).nonzero().flatten()
    if not len(active):
        return torch.empty(0, layer.weight.shape[1])
    ratios = (layer.weight[active] / bias[active, None]).float()
    apart = torch.cdist(ratios, ratios) / ratios.shape[1] ** 0.5
    alike = (apart < ALIKE) & ~torch.eye(len(ratios), dtype=torch.bool)
    inside = ((ratios > -OUTSIDE) & (ratios < 1 + OUTSIDE)).all(dim=1)
    far = (ratios - ratios[inside].mean(dim=0)).norm(dim=1) if bool(inside.any()) else apart[0]
    order = (alike.sum(dim=1) * 1e6 + far).argsort(descending=True, stable=True)
    chosen: list[int] = []
    for each in order.tolist():
        new = bool(inside[each]) and not any(bool(alike[each, other]) for other in chosen)
        if new and len(chosen) < rows:
            chosen.append(each)
    return ratios[chosen].clamp(0, 1)


def _bias(layer: FirstLayer) -> Float[Tensor, " neurons"]:
    if layer.bias is None:
        raise NotApplicable(
            "without a bias (or its gradient) the first layer tells inputs up to their scale alone; "
            "choose attack=cocktail_party or attack=gradient_inversion"
        )
    return layer.bias
