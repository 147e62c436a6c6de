"""Membership inference without shadow models: how sure should the model be of such an input?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import Attack, MembershipGuess, View, child_rng, counted
from privbench.toolkit.answers import log_probabilities
from privbench.toolkit.densities import confidence
from privbench.toolkit.evidence import auxiliary_of, labelled
from privbench.toolkit.settings import above, at_least

HELD_OUT = 0.2  # of the auxiliary records: they say when to stop


@dataclass(frozen=True, kw_only=True)
class QuantileRegression(Attack):
    """A network learns, from records that are out, the confidence that an input would get.

    Bertran, Tang, Kearns, Morgenstern, Roth, Wu, "Scalable Membership Inference Attacks via Quantile
    Regression", NeurIPS 2023, https://arxiv.org/abs/2307.03694 (Gaussian variant).

    We differ: the regressor is a small network on input and label, stopped where it no longer gets better on
    auxiliary records held out from it; the score is the distance above the predicted mean, in predicted
    standard deviations, from which every quantile follows.

    Args:
        hidden: units of the regressor's hidden layer.
        epochs: most passes over the auxiliary records.
        rate: of Adam.

    Example::

        privbench regime=centralized threat=released attack=quantile_regression
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "auxiliary",
        "released_weights|oracle_probabilities",
    )
    source: ClassVar[str] = (
        "Bertran, Tang, Kearns, Morgenstern, Roth, Wu, Scalable Membership Inference Attacks via "
        "Quantile Regression, 2023, https://arxiv.org/abs/2307.03694"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"epochs": 30})

    hidden: int = 64
    epochs: int = 100
    rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "hidden", "epochs")
        above(self, 0, "rate")

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by how far its confidence exceeds what was predicted.

        Raises:
            NotApplicable: no labelled candidates or auxiliary records, or nothing to ask.
        """
        candidates = labelled(view, "quantile_regression")
        auxiliary = auxiliary_of(view, "quantile_regression")
        if candidates.y is None or auxiliary.y is None:
            return MembershipGuess(torch.zeros(len(candidates)))
        seen = confidence(log_probabilities(view, candidates.x), candidates.y)
        known = confidence(log_probabilities(view, auxiliary.x), auxiliary.y)
        classes = int(torch.cat([auxiliary.y, candidates.y]).max()) + 1
        centre, spread = known.mean(), known.std().clamp(min=1e-6)
        inputs = _inputs(auxiliary.x, auxiliary.y, classes)
        regressor = self._fitted(inputs, ((known - centre) / spread).float(), rng)
        with torch.no_grad():
            mean, log_spread = regressor(_inputs(candidates.x, candidates.y, classes)).unbind(dim=1)
        scores = ((seen - centre) / spread - mean.double()) / log_spread.double().exp()
        return MembershipGuess(scores)

    def _fitted(
        self, x: Float[Tensor, "n inputs"], y: Float[Tensor, " n"], rng: torch.Generator
    ) -> nn.Module:
        """Mean and log-spread of a Gaussian for each input, by maximum likelihood."""
        first = nn.utils.skip_init(nn.Linear, x.shape[1], self.hidden)
        net = nn.Sequential(first, nn.ReLU(), nn.utils.skip_init(nn.Linear, self.hidden, 2))
        _draw(net, child_rng(rng, "regressor"))
        optimizer = torch.optim.Adam(net.parameters(), lr=self.rate, weight_decay=1e-4)
        order = torch.randperm(len(x), generator=child_rng(rng, "held out"))
        held, kept = order.split(
            [max(1, int(HELD_OUT * len(x))), len(x) - max(1, int(HELD_OUT * len(x)))]
        )
        draws = child_rng(rng, "batches")
        best, state = math.inf, {k: v.clone() for k, v in net.state_dict().items()}
        for _ in counted(range(self.epochs)):
            for batch in kept[torch.randperm(len(kept), generator=draws)].split(64):
                optimizer.zero_grad()
                _loss(net(x[batch]), y[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                reached = float(_loss(net(x[held]), y[held]))
            if reached < best:
                best, state = reached, {k: v.clone() for k, v in net.state_dict().items()}
        net.load_state_dict(state)
        return net


def _inputs(x: Tensor, y: Tensor, classes: int) -> Float[Tensor, "n inputs"]:
    """A record and its label as one vector."""
    return torch.cat([x.flatten(1).float(), nn.functional.one_hot(y, classes).float()], dim=1)


def _loss(found: Float[Tensor, "n 2"], y: Float[Tensor, " n"]) -> Tensor:
    """Negative log-likelihood of Gaussians, the spread kept within reason."""
    mean, log_spread = found[:, 0], found[:, 1].clamp(-4, 4)
    return (log_spread + 0.5 * ((y - mean) / log_spread.exp()).square()).mean()


def _draw(net: nn.Module, rng: torch.Generator) -> None:
    """Initial weights from a generator of one's own."""
    with torch.no_grad():
        for parameter in net.parameters():
            bound = 1 / math.sqrt(parameter.shape[-1]) if parameter.ndim > 1 else 0.0
            parameter.copy_((2 * torch.rand(parameter.shape, generator=rng) - 1) * bound)
