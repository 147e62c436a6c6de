"""What owners find for the tensors of stem and tail, each on its own rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from privbench.contract import Party
from privbench.slicenet.graph import Graph, Stage
from privbench.slicenet.noise import Noise
from privbench.slicenet.passes import Pass


def rerun(
    graph: Graph,
    place: str,
    values: Mapping[str, Tensor],
    arrived: Mapping[str, Tensor],
    rows: Int64[Tensor, " k"],
    noise: Noise,
) -> dict[str, Tensor]:
    """Gradients of an owner's rows, found as an owner does: it runs stem or tail on them.

    Args:
        place: ``stem`` or ``tail``.
        values: of all rows: the samples (called "") and all layers.
        arrived: gradients of what leaves the place, of all rows.
        rows: the owner's.

    Returns:
        for each trained tensor of the place, by name, its gradient.
    """
    stages = graph.placed(place)
    inside = {stage.layer.name for stage in stages}
    needed = {name for stage in stages for o in stage.operands for name in o.sources}
    fed = {name: values[name].detach()[rows] for name in needed - inside}
    own = graph.run(stages, fed, noise, rows=rows)
    ends = [name for name in arrived if name in inside and own[name].requires_grad]
    tensors = {
        name: tensor
        for stage in stages
        for name, tensor in stage.tensors.items()
        if tensor.requires_grad
    }
    found = torch.autograd.grad(
        [own[name] for name in ends],
        list(tensors.values()),
        [arrived[name][rows] for name in ends],
        allow_unused=True,
    )
    return {
        name: torch.zeros_like(tensor) if each is None else each
        for (name, tensor), each in zip(tensors.items(), found, strict=True)
    }


class Dues:
    """What owners found for the tensors of stem or tail in a step, added up over its micro-batches."""

    def __init__(self) -> None:
        self._found: dict[Party, tuple[list[Tensor], dict[str, Tensor]]] = {}

    def add(self, owner: Party, rows: Int64[Tensor, " k"], found: Mapping[str, Tensor]) -> None:
        """An owner's gradients of some rows of the step."""
        seen, sums = self._found.setdefault(owner, ([], {}))
        seen.append(rows)
        for name, value in found.items():
            sums[name] = sums[name] + value if name in sums else value

    def __iter__(self) -> Iterator[tuple[Party, Int64[Tensor, " k"], Mapping[str, Tensor]]]:
        for owner, (seen, sums) in self._found.items():
            yield owner, seen[0] if len(seen) == 1 else torch.cat(seen), sums


def plain(stages: Sequence[Stage]) -> bool:
    """Are all trained tensors weights and biases of layers whose gradients ``of_rows`` can part?"""
    return all(_plain(stage) for stage in stages if _trained(stage))


def of_rows(
    done: Sequence[Pass], deltas: Mapping[str, Tensor], rows: Int64[Tensor, " k"]
) -> dict[str, Tensor]:
    """The same as ``rerun``, to rounding, from what the whole batch's pass has left behind.

    A layer's gradients are sums over rows, so an owner's are those of its rows' inputs and of the
    gradients of their maps: nothing is run again.

    Args:
        done: all stages of stem or tail, run on the whole batch; ``plain``.
        deltas: gradients of their maps, by name.
        rows: the owner's.
    """
    found: dict[str, Tensor] = {}
    for ran in done:
        if names := _names(ran.stage):
            (opened,) = ran.opened
            delta = deltas[ran.stage.layer.name][rows]
            both = _layer_gradients(ran.stage, opened.detach()[rows], delta)
            found |= dict(zip(names, both, strict=False))
    return found


def _trained(stage: Stage) -> list[str]:
    return [name for name, tensor in stage.tensors.items() if tensor.requires_grad]


def _plain(stage: Stage) -> bool:
    module: Any = stage.module
    if stage.sort != "layer" or len(_names(stage)) != len(_trained(stage)):
        return False
    if isinstance(module, nn.Linear):
        return len(stage.map_shape) == 1
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _names(stage: Stage) -> list[str]:
    """Of weight and bias, in this order; none where one of them is not trained."""
    if stage.sort != "layer":
        return []
    own = [t for t in (stage.weight, stage.bias) if t is not None]
    found = [n for mine in own for n, tensor in stage.tensors.items() if tensor is mine]
    return found if all(tensor.requires_grad for tensor in own) else []


def _layer_gradients(
    stage: Stage, opened: Float[Tensor, "k ..."], delta: Float[Tensor, "k ..."]
) -> Iterator[Tensor]:
    """Of weight and bias."""
    module: Any = stage.module
    if isinstance(module, nn.Linear):
        return iter((delta.T @ opened, delta.sum(0)))
    spatial = len(module.stride)
    _, weight, bias = torch.ops.aten.convolution_backward(
        delta, opened, stage.weight.detach(), [stage.layer.channels], module.stride, module.padding,
        module.dilation, False, [0] * spatial, module.groups, [False, True, True],
    )  # fmt: skip
    return iter((weight, bias))
