"""One stage forward and back, whole and in the parts that single devices would compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from privbench.slicenet.graph import Stage


@dataclass(frozen=True, eq=False)
class Pass:
    """A stage that has run forward; its graph begins at ``entry``.

    Args:
        entry: what travelled in.
        opened: behind the stage's opening.
        mapped: the layer's own output.
        out: behind the closing; what travels on.
    """

    stage: Stage
    entry: Float[Tensor, "n ..."]
    opened: Float[Tensor, "n ..."]
    mapped: Float[Tensor, "n ..."]
    out: Float[Tensor, "n ..."]

    def map_gradient(self, gradient: Tensor) -> Tensor:
        """From the gradient of ``out`` to that of ``mapped``."""
        return torch.autograd.grad(self.out, self.mapped, gradient, retain_graph=True)[0]

    def entry_gradient(self, delta: Tensor, units: Sequence[int]) -> Tensor:
        """The part of the gradient of ``entry`` that these output channels add."""
        chosen = list(units)
        module = self.stage.module
        if isinstance(module, nn.Linear) and self.opened is self.entry:
            return delta[:, chosen] @ module.weight.detach()[chosen]
        kept = torch.zeros_like(delta)
        kept[:, chosen] = delta[:, chosen]
        return torch.autograd.grad(self.mapped, self.entry, kept, retain_graph=True)[0]

    def all_gradients(self, delta: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """The gradients of ``entry`` (None where it needs none) and of the layer's parameters."""
        entries = [self.entry] if self.entry.requires_grad else []
        parameters = list(self.stage.module.parameters())
        found = torch.autograd.grad(self.mapped, [*entries, *parameters], delta, retain_graph=True)
        return (found[0] if entries else None), tuple(found[len(entries) :])


def forward(stage: Stage, value: Tensor) -> Pass:
    """Run a stage on a detached value."""
    opened = stage.opening(value)
    mapped = stage.module(opened)
    return Pass(stage, value, opened, mapped, stage.closing(mapped))


def replaced(done: Pass, mapped: Tensor) -> Pass:
    """The same pass with another map in place of its own; gradients flow as before."""
    shifted = done.mapped + (mapped.to(done.mapped) - done.mapped).detach()
    return Pass(done.stage, done.entry, done.opened, shifted, done.stage.closing(shifted))


def partial_sum(stage: Stage, opened: Tensor, columns: Sequence[int]) -> Tensor:
    """What some input channels add to a layer's map, without bias; detached."""
    module: Any = stage.module
    chosen = list(columns)
    with torch.no_grad():
        weight = module.weight[:, chosen]
        if isinstance(module, nn.Linear):
            return F.linear(opened[:, chosen], weight)
        out: Tensor = module._conv_forward(opened[:, chosen], weight, None)
        return out


def of_rows(gradient: Tensor, rows: Int64[Tensor, " k"]) -> Tensor:
    """The same gradient with that of all other rows left out."""
    kept = torch.zeros_like(gradient)
    kept[rows] = gradient[rows]
    return kept
