"""How far gradients of given inputs lie from gradients that were seen, and which way is nearer.

Many searches run side by side. Where they all match gradients under the same weights, as a server's do,
and these belong to convolutions and linear layers alone, no gradient of weights is ever differentiated:
the distance's slope in gradient space is pushed through the layers by hand, which is several times less
work. Otherwise autograd differentiates twice, under vmap where there are several sets of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.toolkit.layerwise import Layerwise, layers_behind
from privbench.toolkit.sets import over_sets

State = Mapping[str, Tensor]
TINY = 1e-30
IMAGES_A_PIECE = 16  # what is unfolded of more no longer fits a processor's cache


@dataclass(frozen=True, eq=False)
class Gap:
    """How far gradients lie apart, and the slope of that at the first of them."""

    value: Float[Tensor, " jobs"]
    slope: Float[Tensor, "jobs p"]


Distance = Callable[[Tensor, Tensor], Gap]
"""Gradients ``(jobs, p)`` and those that were seen, to their gaps."""


def cosine(found: Float[Tensor, "jobs p"], goal: Float[Tensor, "jobs p"]) -> Gap:
    """One less the cosine of the angle between them: how large either is does not matter."""
    length = found.square().sum(dim=1, keepdim=True).clamp(min=TINY)
    scale = (length * goal.square().sum(dim=1, keepdim=True).clamp(min=TINY)).rsqrt()
    dot = (found * goal).sum(dim=1, keepdim=True)
    slope = (found * (dot * scale / length)).addcmul_(goal, scale, value=-1)
    return Gap(1 - (dot * scale).squeeze(1), slope)


def squared(found: Float[Tensor, "jobs p"], goal: Float[Tensor, "jobs p"]) -> Gap:
    """The sum of squared differences."""
    apart = found - goal
    return Gap(apart.square().sum(dim=1), 2 * apart)


def relative(found: Float[Tensor, "jobs p"], goal: Float[Tensor, "jobs p"]) -> Gap:
    """The sum of squared differences, in units of the squared size of what was seen."""
    gap, size = squared(found, goal), goal.square().sum(dim=1).clamp(min=TINY)
    return Gap(gap.value / size, gap.slope / size[:, None])


@dataclass(frozen=True, eq=False)
class Problem:
    """One gradient to match.

    Args:
        gradient: by parameter; it may be of some parameters only.
        weights: state dict under which it was computed.
        share: of each input in the mean loss; 0 = padding.
    """

    gradient: State
    weights: State
    share: Float[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Pull:
    """Distances, and their slopes; each job's depend on itself alone."""

    value: Float[Tensor, " jobs"]
    x: Float[Tensor, "jobs n ..."]
    logits: Float[Tensor, "jobs n classes"] | None


class Matcher:
    """Distances between the gradients of given inputs and those of some problems, side by side.

    Args:
        module: a fresh one; its parameter values are of no meaning and it is changed.
        problems: gradients of the same parameters, the same number of inputs each.
        shape: of one input.
        distance: between gradients.
        device: where to compute.
        mixed: their weights may differ, even if those of these happen to be the same.

    Example::

        pull = Matcher(net.module(), problems, (3, 32, 32), cosine, "cpu").pull(x, labels)
    """

    def __init__(
        self,
        module: nn.Module,
        problems: Sequence[Problem],
        shape: Sequence[int],
        distance: Distance,
        device: str = "cpu",
        mixed: bool = False,
    ) -> None:
        self._names = tuple(problems[0].gradient)
        self._distance = distance
        self._share = torch.stack([each.share for each in problems]).to(device)
        self._goal = torch.stack([flat(each.gradient, self._names) for each in problems]).to(device)
        first = problems[0].weights
        self._layerwise: Layerwise | None = None
        if not mixed and _alike([each.weights for each in problems]):
            module.load_state_dict(dict(first))
            module.to(device)
            found = layers_behind(module, self._names, torch.zeros(1, *shape, device=device))
            self._layerwise = None if found is None else Layerwise(module, found)
        if self._layerwise is None:
            self._function = over_sets(module.to(device), shape, 2 if mixed else len(problems))
            self._states = {
                name: torch.stack([each.weights[name] for each in problems]).to(device)
                for name in first
            }

    def pull(self, x: Float[Tensor, "jobs n ..."], labels: Tensor, soft: bool = False) -> Pull:
        """Distance and slope.

        Args:
            labels: ``(jobs, n, classes)`` probabilities; where ``soft``, their logits, to which there
                is a slope too.
        """
        if self._layerwise is None:
            return self._twice(x, labels, soft)
        pieces = []
        size = max(1, IMAGES_A_PIECE // x.shape[1])
        for start in range(0, len(x), size):
            at = slice(start, start + size)
            pieces.append(self._by_layers(self._layerwise, at, x[at], labels[at], soft))
        return _joined(pieces)

    def _by_layers(
        self, layers: Layerwise, at: slice, x: Tensor, labels: Tensor, soft: bool
    ) -> Pull:
        x = x.detach().requires_grad_()
        labels = labels.detach().requires_grad_(soft)
        said = layers.forward(x)
        parts = layers.gradient(_loss(said, labels, soft, self._share[at]))
        gap = self._distance(torch.cat(parts, dim=1), self._goal[at])
        return Pull(gap.value, *layers.pushed(gap.slope, x, labels if soft else None))

    def _twice(self, x: Tensor, labels: Tensor, soft: bool) -> Pull:
        x = x.detach().requires_grad_()
        labels = labels.detach().requires_grad_(soft)
        at = {name: self._states[name].detach().requires_grad_() for name in self._names}
        said = self._function({**self._states, **at}, x)
        loss = _loss(said, labels, soft, self._share)
        parts = torch.autograd.grad(loss, tuple(at.values()), create_graph=True)
        found = torch.cat([part.flatten(1) for part in parts], dim=1)
        gap = self._distance(found.detach(), self._goal)
        slopes = torch.autograd.grad(found, (x, labels) if soft else (x,), gap.slope)
        return Pull(gap.value, slopes[0], slopes[1] if soft else None)


class Adam:
    """Adam's direction, for one tensor (D. P. Kingma, J. Ba, 2015, https://arxiv.org/abs/1412.6980)."""

    def __init__(self, like: Tensor) -> None:
        self._mean, self._square, self._step = torch.zeros_like(like), torch.zeros_like(like), 0

    def direction(self, slope: Tensor) -> Tensor:
        """Where to go, in units of the rate."""
        self._step += 1
        self._mean = self._mean.mul(0.9).add(slope, alpha=0.1)
        self._square = self._square.mul(0.999).addcmul(slope, slope, value=0.001)
        scale = (self._square / (1 - 0.999**self._step)).sqrt().add(1e-8)
        return self._mean / (1 - 0.9**self._step) / scale


def flat(tensors: State, names: Sequence[str]) -> Float[Tensor, " p"]:
    """Some tensors as one row of numbers."""
    return torch.cat([tensors[name].flatten() for name in names])


def _loss(said: Tensor, labels: Tensor, soft: bool, share: Tensor) -> Tensor:
    """Cross-entropy, weighed by each input's share in the mean."""
    wanted = labels.softmax(dim=-1) if soft else labels
    return -(share * (wanted * said.log_softmax(dim=-1)).sum(dim=-1)).sum()


def _alike(states: Sequence[State]) -> bool:
    """Are all weights the same?"""
    first = states[0]
    return all(
        state is first
        or all(first[n] is each or torch.equal(first[n], each) for n, each in state.items())
        for state in states[1:]
    )


def _joined(pieces: Sequence[Pull]) -> Pull:
    logits = [piece.logits for piece in pieces if piece.logits is not None]
    return Pull(
        torch.cat([piece.value for piece in pieces]),
        torch.cat([piece.x for piece in pieces]),
        torch.cat(logits) if logits else None,
    )
