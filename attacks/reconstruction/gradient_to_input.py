"""Rebuild inputs from what flows back through a cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Attack, Block, Public, ReconstructionGuess, View
from privbench.errors import NotApplicable
from privbench.toolkit.descent import Descent
from privbench.toolkit.pairs import input_shape
from privbench.toolkit.priors import expected
from privbench.toolkit.slopes import Slopes, slopes_of_victims, whole_network
from privbench.toolkit.traffic import places

TINY = 1e-20  # squared norm of a gradient below which nothing flows back


@dataclass(frozen=True, kw_only=True)
class GradientToInput(Attack):
    """Inputs from the gradient of the loss with respect to an activation, one sample at a time.

    J. Geiping, H. Bauermeister, H. Dröge, M. Moeller: Inverting Gradients - How easy is it to break
    privacy in federated learning?, NeurIPS 2020, https://arxiv.org/abs/2003.14053, for the search for
    inputs that give a gradient.

    We differ: theirs is a gradient of weights, compared by direction; here a sample's own gradient
    crosses a cut, and its length is compared too, as it tells how sure the network is.

    The label is the one whose gradient at the mean input comes nearest; the search starts at that
    label's mean auxiliary input and stays near it, for a gradient tells little beside the label: one
    number a class, and which units behind the cut are silent. What the network does not explain (a
    part of a sum over hosts, weights of another step) is guessed at that mean.

    Args:
        steps, rate, smooth: see ``privbench.toolkit.descent.Descent``.
        near: weight of the squared distance from the start beside the relative error of the gradient.
        explained: relative squared error of a gradient up to which what was found is believed.

    Example::

        privbench regime=slicenet threat=host threat.steps=first:1 attack=gradient_to_input
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = (
        "model_weights|released_weights|stale_weights|initial_weights",
        "auxiliary",
    )
    reads: ClassVar[tuple[str, ...]] = ("gradient",)
    source: ClassVar[str] = (
        "J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, Inverting Gradients - How easy is it to "
        "break privacy in federated learning?, 2020, https://arxiv.org/abs/2003.14053"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 200})

    steps: int = 400
    rate: float = 0.03  # of the input's range
    smooth: float = 0.0  # it did not help where labels' means are the start
    near: float = 1e-5  # a hundred times more and it hardly moves, a tenth and it drifts
    explained: float = 0.05

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An input for each victim; the mean auxiliary one where no gradient of it was seen.

        Raises:
            NotApplicable: at no step of a victim does the seat know the whole network.
        """
        shape = input_shape(view)
        guess = expected(view.public, shape).repeat(len(view.victims), *(1 for _ in shape))
        error = torch.full((len(view.victims),), torch.inf)
        blocks = slopes_of_victims(view)
        known = False
        for step in view.victims[:, 0].unique().tolist():
            weights = whole_network(view, step)
            if weights is None:
                continue
            known = True
            module = view.topology.net.module()
            module.load_state_dict(dict(weights))
            module.to(view.device).eval()
            for block in reversed(blocks):  # what is shallow has more to say
                at = places(block.rows, view.victims)
                here = (at >= 0) & (view.victims[:, 0] == step) & (error > self.explained)
                if not bool(here.any()):
                    continue
                back = Slopes(module, view.topology.layer(block.layer))
                seen = block.payload[at[here]] * _rows_of(blocks, step)
                found, left = self._searched(view, module, back, block.units, seen)
                better = left < error[here]
                now = here.nonzero().flatten()[better]
                guess[now], error[now] = found[better], left[better]
        if not known and len(view.victims):
            raise NotApplicable(
                f"'{view.seat.name}' knows the whole network at none of the steps that it saw; choose "
                "threat.steps=first:1, whose weights are public"
            )
        return ReconstructionGuess(view.victims, guess)

    def _searched(
        self,
        view: View,
        module: torch.nn.Module,
        back: Slopes,
        units: tuple[int, ...],
        seen: Float[Tensor, "n units ..."],
    ) -> tuple[Float[Tensor, "n ..."], Float[Tensor, " n"]]:
        """Inputs whose gradient is this one, and what is left of its square."""
        device = torch.device(view.device)
        columns = torch.tensor(units, device=device)
        goal = seen.to(device).float().flatten(1)
        length = goal.square().sum(dim=1)

        def far(x: Tensor, y: Tensor) -> Float[Tensor, " n"]:
            found = back(x, y).index_select(1, columns).flatten(1)
            return (found - goal).square().sum(dim=1) / length.clamp(min=TINY)

        mean = expected(view.public, input_shape(view)).to(device)
        x = mean.expand(len(seen), *mean.shape)
        with torch.no_grad():
            classes = module(x[:1]).shape[1]
        y = _labels(far, x, classes)
        start = _means(view.public, mean, y)

        def errors(x: Tensor) -> Float[Tensor, " n"]:
            return far(x, y) + self.near * (x - start).square().flatten(1).sum(dim=1)

        descent = Descent(steps=self.steps, rate=self.rate, smooth=self.smooth)
        found = descent.run(errors, start, mean.ndim)
        left = far(found, y).detach()
        told = (left <= self.explained) & (length > TINY)
        kept = torch.where(told.view(-1, *(1 for _ in mean.shape)), found, start)
        return kept.cpu(), left.cpu()


def _rows_of(blocks: list[Block], step: int) -> int:
    """How many rows the loss of a step was averaged over: those that some layer was seen of."""
    return max(int((block.rows[:, 0] == step).sum()) for block in blocks)


def _labels(
    far: Callable[[Tensor, Tensor], Tensor], x: Float[Tensor, "n ..."], classes: int
) -> Int64[Tensor, " n"]:
    """Those under which the mean input's gradient comes nearest to what was seen."""
    distances = [
        far(x, torch.full((len(x),), label, device=x.device)).detach() for label in range(classes)
    ]
    return torch.stack(distances).argmin(dim=0)


def _means(
    public: Public, mean: Float[Tensor, " *shape"], y: Int64[Tensor, " n"]
) -> Float[Tensor, "n ..."]:
    """The mean auxiliary input of each label; of all, where there are none of it."""
    found = mean.expand(len(y), *mean.shape).clone()
    auxiliary = public.auxiliary
    if auxiliary is not None and auxiliary.y is not None:
        for label in y.unique().tolist():
            alike = auxiliary.x[auxiliary.y == label]
            if len(alike):
                found[y == label] = alike.float().mean(dim=0).to(found)
    return found
