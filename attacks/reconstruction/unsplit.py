"""Find inputs and the client's weights together, from activations alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, ReconstructionGuess, View, child_rng, counted
from privbench.toolkit.priors import GREY, is_image
from privbench.toolkit.standin import StandIn, guessed, snapshots, unseen
from privbench.toolkit.traffic import Seen, selected


@dataclass(frozen=True, kw_only=True)
class Unsplit(Attack):
    """Alternate between inputs and a clone of the client's layers until both explain what was seen.

    E. Erdogan, A. Küpçü, A. E. Çiçek: UnSplit: Data-Oblivious Model Inversion, Model Stealing, and
    Label Inference Attacks Against Split Learning, WPES 2022, https://arxiv.org/abs/2108.09033.

    We differ: all victims share one clone and are searched for together (theirs come one after
    another), errors are relative to the mean square of what was seen, and layers that the seat knows
    are not searched for. ``attack=unsplit_published`` has their settings.

    It uses no auxiliary record, only the shape of one. The clone is one for all steps seen, so that
    it is of use where these lie close together (``threat.steps=last:1``, or the last epoch).

    Args:
        rounds: of both searches.
        input_steps, model_steps: of Adam (amsgrad) in each round.
        input_rate, model_rate: of these steps.
        smooth: weight of squared total variation beside an input's relative error.
        small: weight of an input's mean square.
        relative: are errors divided by the mean square of what was seen?

    Example::

        privbench regime=split threat=split_server attack=unsplit victims=32
    """

    goal: ClassVar[str] = "reconstruction"
    reads: ClassVar[tuple[str, ...]] = ("activation",)
    source: ClassVar[str] = (
        "E. Erdogan, A. Küpçü, A. E. Çiçek, UnSplit: Data-Oblivious Model Inversion, Model Stealing, "
        "and Label Inference Attacks Against Split Learning, 2022, https://arxiv.org/abs/2108.09033"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType(
        {
            "rounds": 8,
            "input_steps": 10,
            "model_steps": 10,
            "input_rate": 0.05,
            "small": 0.1,
            "relative": True,
        }
    )

    rounds: int = 100
    input_steps: int = 20
    model_steps: int = 20
    input_rate: float = 0.01
    model_rate: float = 1e-3
    smooth: float = 0.1
    small: float = 0.1
    relative: bool = True

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An input for each victim; grey for one that was not seen.

        Raises:
            NotApplicable: nothing tells the shape of an input.
        """
        blank = torch.full_like(unseen(view), GREY)

        def work(seen: Seen, target: Tensor) -> Tensor:
            found, _ = self.search(view, seen, target, blank.shape[1:], rng)
            return found

        return guessed(view, blank, work)

    def search(
        self,
        view: View,
        seen: Seen,
        payload: Float[Tensor, "n units ..."],
        shape: torch.Size,
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "n ..."], StandIn]:
        """Inputs that explain what was seen, and the network with the clone in it."""
        step = snapshots(view, seen)[-1]
        clone = StandIn(
            view.topology, view.weights, seen.layer, step, child_rng(rng, "clone"), view.device
        )
        target = payload.float().to(view.device)
        scale = target.square().mean().clamp(min=1e-12) if self.relative else 1.0
        x = torch.full((len(target), *shape), GREY, device=view.device, requires_grad=True)
        inputs = torch.optim.Adam([x], lr=self.input_rate, amsgrad=True)
        layers = clone.before()
        model = torch.optim.Adam(layers or [x], lr=self.model_rate, amsgrad=True)

        def errors() -> Float[Tensor, " n"]:
            error = selected(clone.activation(x), seen.seen.units) - target
            return error.square().flatten(1).mean(dim=1) / scale

        for _ in counted(range(self.rounds)):
            for _ in range(self.input_steps):
                prior = self.small * x.square().flatten(1).mean(dim=1) + self.smooth * _rough(x)
                (x.grad,) = torch.autograd.grad((errors() + prior).sum(), [x])
                inputs.step()
            for _ in range(self.model_steps if layers else 0):
                slopes = torch.autograd.grad(errors().mean(), layers)
                for layer, slope in zip(layers, slopes, strict=True):
                    layer.grad = slope
                model.step()
        return x.detach(), clone


def _rough(x: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Each image's mean squared difference of neighbours; 0 for what is no image."""
    if not is_image(x.shape[1:]):
        return x.new_zeros(len(x))
    across, down = x.diff(dim=-1).square(), x.diff(dim=-2).square()
    return across.flatten(1).mean(dim=1) + down.flatten(1).mean(dim=1)
