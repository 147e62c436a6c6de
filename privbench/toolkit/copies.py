"""Copies of one chain of linear layers, side by side: forward, backward, per-sample clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.toolkit.chain import Link, keeps_input, slope

LANES = (
    16  # floats in 64 bytes: every tensor starts at such a boundary, and none leaves a remainder
)


class Copies:
    """Parameters of ``r`` networks in one buffer, with hand-written gradients.

    One flat buffer lets one fused optimiser step update all copies; each tensor of the state dict
    is a contiguous ``(copies, *shape)`` view of it.

    Args:
        links: the chain.
        states: one state dict a copy.
        device: where to compute.
    """

    def __init__(
        self, links: Sequence[Link], states: Sequence[Mapping[str, Tensor]], device: torch.device
    ) -> None:
        self.links = tuple(links)
        self.names = [name for link in links for name in (link.weight, link.bias) if name]
        shapes = {name: (len(states), *states[0][name].shape) for name in self.names}
        sizes = [torch.Size(shape).numel() for shape in shapes.values()]
        total = sum(-(-size // LANES) * LANES for size in sizes)
        self.flat = nn.Parameter(torch.zeros(total, device=device))
        self._gradient = torch.zeros(total, device=device)
        self.flat.grad = self._gradient
        self.tensors: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        start = 0
        for (name, shape), size in zip(shapes.items(), sizes, strict=True):
            self.tensors[name] = self.flat.detach()[start : start + size].view(shape)
            self.gradients[name] = self._gradient[start : start + size].view(shape)
            start += -(-size // LANES) * LANES
        self.load(states)

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Set every copy's parameters."""
        for name, tensor in self.tensors.items():
            tensor.copy_(torch.stack([state[name] for state in states]))

    def state(self, copy: int) -> dict[str, Tensor]:
        """The state dict of one copy, on the CPU."""
        return {k: t[copy].detach().to("cpu", copy=True) for k, t in self.tensors.items()}

    def forward(self, x: Float[Tensor, "copies batch inputs"]) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs of each layer and, last, the logits; and the values before each activation."""
        values, before = [x], []
        for link in self.links:
            matrix = self.tensors[link.weight].transpose(1, 2)
            if link.bias is None:
                z = torch.bmm(values[-1], matrix)
            else:
                z = torch.baddbmm(self.tensors[link.bias].unsqueeze(1), values[-1], matrix)
            before.append(z)
            values.append(_activated(link.activation, z))
        return values, before

    def backward(
        self,
        values: list[Tensor],
        before: list[Tensor],
        delta: Float[Tensor, "copies batch classes"],
        weight: Float[Tensor, "copies batch 1"] | None = None,
        clip: float | None = None,
    ) -> None:
        """Write the gradient of the loss into ``gradients``.

        Args:
            values, before: what ``forward`` returned.
            delta: gradient at the network's output, one row a sample; overwritten.
            weight: each sample's weight in the sum (with ``clip`` after clipping).
            clip: largest L2 norm of one sample's gradient over all parameters, None = no clipping.
        """
        deltas: list[Tensor] = []
        if clip is None and weight is not None:
            delta.mul_(weight)
        for place in reversed(range(len(self.links))):
            link = self.links[place]
            delta = slope(link.activation, before[place], values[place + 1], delta)
            deltas.insert(0, delta)
            if place:
                delta = torch.bmm(delta, self.tensors[link.weight])
        if clip is not None:
            factor = _clipping(self.links, values, deltas, clip)
            factor = factor if weight is None else factor * weight
            deltas = [delta * factor for delta in deltas]
        for link, value, delta in zip(self.links, values, deltas, strict=False):
            torch.bmm(delta.transpose(1, 2), value, out=self.gradients[link.weight])
            if link.bias is not None:
                torch.sum(delta, dim=1, out=self.gradients[link.bias])

    def perturb(self, std: float, batch: int, noises: Sequence[torch.Generator]) -> None:
        """Add Gaussian noise to each copy's summed gradient, then divide it by ``batch``.

        Args:
            std: standard deviation of the noise on the sum.
            batch: expected number of records a step.
            noises: one generator a copy, drawn tensor by tensor as a sequential trainer does.
        """
        for copy, noise in enumerate(noises):
            for gradient in self.gradients.values():
                drawn = torch.normal(0.0, std, gradient.shape[1:], generator=noise)
                gradient[copy].add_(drawn.to(gradient))
        self._gradient.div_(batch)

    def average(self, records: Float[Tensor, "models clients"]) -> None:
        """Set every copy to the mean over its model's clients, weighted by their records."""
        share = records / records.sum(dim=1, keepdim=True)
        for tensor in self.tensors.values():
            mine = tensor.view(*share.shape, -1)
            mean = torch.einsum("mc,mcp->mp", share, mine)
            mine.copy_(mean[:, None].expand_as(mine))


def _activated(activation: nn.Module | None, z: Tensor) -> Tensor:
    if activation is None:
        return z
    if isinstance(activation, nn.ReLU):
        return z.relu_()
    if keeps_input(activation):
        return activation(z.clone())  # it may work in place
    return activation(z)


def _clipping(
    links: Sequence[Link], values: Sequence[Tensor], deltas: Sequence[Tensor], clip: float
) -> Float[Tensor, "copies batch 1"]:
    """The factor that brings each sample's gradient to a norm of at most ``clip``.

    The gradient of a linear layer for one sample is an outer product, so its squared norm is the
    product of two squared norms (Goodfellow, "Efficient Per-Example Gradient Computations", 2015,
    https://arxiv.org/abs/1510.01799).
    """
    total = torch.zeros_like(deltas[0][..., :1])
    for link, value, delta in zip(links, values, deltas, strict=False):
        inputs = value.square().sum(-1, keepdim=True)
        if link.bias is not None:
            inputs = inputs + 1
        total += inputs * delta.square().sum(-1, keepdim=True)
    return (clip / (total.sqrt() + 1e-6)).clamp(max=1.0)
