"""Tell inputs apart in an aggregated gradient as voices at a party: they are independent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, ReconstructionGuess, View, child_rng
from privbench.toolkit.inverting import Found, asked_first, guessed, shape_of
from privbench.toolkit.priors import expected
from privbench.toolkit.ratios import first_linear
from privbench.toolkit.updates import observed

RANK = 1e-5  # of the largest singular value: below it a direction is rounding
CLOSE = 1e-6  # to turn no more


@dataclass(frozen=True, kw_only=True)
class CocktailParty(Attack):
    """Independent component analysis of a first linear layer's weight gradient.

    S. Kariyappa, C. Guo, K. Maeng, W. Xiong, G. E. Suh, M. K. Qureshi, H.-H. S. Lee: Cocktail Party Attack:
    Breaking Aggregation-Based Privacy in Federated Learning using Independent Component Analysis,
    ICML 2023, https://arxiv.org/abs/2209.05578.

    Each row of the gradient is a mixture of the batch's inputs. As many neurons as inputs must have been
    active; no bias and no weights are needed.

    Participants that see broadcasts alone have ``stem_differencing``.

    We differ: the unmixing is FastICA's fixed point (A. Hyvärinen, 1999,
    https://doi.org/10.1109/72.761722) with a start from ``rng``, without their priors of smoothness; sign
    and scale, which are not told, are those that fit the mean auxiliary input best.

    Args:
        steps: of the fixed point, at most.
        images: most that are told apart.

    Example::

        privbench regime=fedavg model=mlp threat=server attack=cocktail_party
    """

    goal: ClassVar[str] = "reconstruction"
    reads: ClassVar[tuple[str, ...]] = ("update", "stem_gradient")
    source: ClassVar[str] = (
        "S. Kariyappa, C. Guo, K. Maeng, W. Xiong, G. E. Suh, M. K. Qureshi, H.-H. S. Lee, Cocktail Party "
        "Attack: Breaking Aggregation-Based Privacy in Federated Learning using Independent Component "
        "Analysis, 2023, https://arxiv.org/abs/2209.05578"
    )

    steps: int = 200
    images: int = 64

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """Images for the rows of each update that holds a victim, one group an update.

        A batch of more inputs than active neurons or than values an input has is not identified: as
        many as there are directions are told apart, the rest is guessed at the mean auxiliary input.

        Raises:
            NotApplicable: the first layer is not linear, or its gradient was not seen.
        """
        found = []
        for known in observed(view, whole=False) if len(view.victims) else ():
            rows = asked_first(view, known, self.images)
            if rows is None:
                continue
            shape = shape_of(view)
            layer = first_linear(view.topology.net.module(), known.gradient, math.prod(shape))
            mean = expected(view.public, shape).flatten()
            draw = child_rng(rng, "turn", known.step, known.sender)
            told = self._told(layer.weight, len(known.rows), mean, draw)[: len(rows)]
            x = mean.expand(len(rows), -1).clone()
            x[: len(told)] = told
            found.append(Found(rows, x.view(-1, *shape)))
        return guessed(view, found)

    def _told(
        self, mixed: Float[Tensor, "neurons f"], rows: int, mean: Tensor, rng: torch.Generator
    ) -> Float[Tensor, "found f"]:
        """The sources of some mixtures, scaled and signed."""
        if not bool(mixed.any()):
            return torch.empty(0, mixed.shape[1])
        _, sizes, base = torch.linalg.svd(mixed, full_matrices=False)
        base = base[: min(rows, int((sizes > RANK * sizes[0]).sum()))]
        if len(base) == 1:
            return _scaled(base, mean)
        centred = base - base.mean(dim=1, keepdim=True)
        _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
        kept = spread > 1e-3 * spread[0]
        white = axes[kept] * base.shape[1] ** 0.5
        turn = self._turned(white, rng)
        # the same unmixing, of what was not centred
        weights = torch.linalg.pinv(centred.T) @ (turn @ white).T
        return _scaled(weights.T @ base, mean)

    def _turned(self, white: Float[Tensor, "k f"], rng: torch.Generator) -> Float[Tensor, "k k"]:
        """The rotation under which rows are least Gaussian."""
        turn = _orthogonal(torch.randn(len(white), len(white), generator=rng).to(white))
        for _ in range(self.steps):
            said = torch.tanh(turn @ white)
            slope = (1 - said.square()).mean(dim=1, keepdim=True)
            after = _orthogonal(said @ white.T / white.shape[1] - slope * turn)
            still = (after * turn).sum(dim=1).abs().min()
            turn = after
            if 1 - float(still) < CLOSE:
                break
        return turn


def _orthogonal(turn: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    left, _, right = torch.linalg.svd(turn)
    return left @ right


def _scaled(sources: Float[Tensor, "k f"], mean: Float[Tensor, " f"]) -> Float[Tensor, "k f"]:
    """Sources with the sign and scale that bring them nearest the mean auxiliary input."""
    wanted = mean.to(sources)
    signed = sources * torch.sign(sources @ wanted)[:, None]
    # as bright as inputs are: a mixture's scale is lost, the sum of an input's values is not far off
    scale = wanted.square().sum() / (signed @ wanted).clamp(min=1e-12)
    bright = 1 / signed.amax(dim=1).clamp(min=1e-12)
    return (signed * torch.minimum(2 * scale, bright)[:, None]).clamp(0, 1).float()
