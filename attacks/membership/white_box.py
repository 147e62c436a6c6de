"""Membership inference from gradients: training has made those of members small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, Fit, MembershipGuess, Net, Samples, View, counted
from privbench.errors import NotApplicable
from privbench.toolkit.answers import numbers
from privbench.toolkit.evidence import auxiliary_of, labelled, shadows_of
from privbench.toolkit.features import gradient_norms, of_answers
from privbench.toolkit.logistic import fit_logistic
from privbench.toolkit.settings import at_least
from privbench.toolkit.shadows import ShadowModels, shadow_states


@dataclass(frozen=True, kw_only=True)
class WhiteBox(Attack):
    """Gradient norms of every parameter tensor, and the answer, to an attack model.

    Nasr, Shokri, Houmansadr, "Comprehensive Privacy Analysis of Deep Learning: Passive and Active
    White-box Inference Attacks against Centralized and Federated Learning", IEEE S&P 2019,
    https://arxiv.org/abs/1812.00910.

    We differ: norms of gradients take the place of gradients behind convolutions, and a logistic
    regression learns from a few shadow models what members look like, not from members that are known.

    Args:
        models: shadow models that it learns from, at most.

    Example::

        privbench regime=centralized threat=released attack=white_box
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("candidates", "auxiliary", "recipe", "released_weights")
    source: ClassVar[str] = (
        "Nasr, Shokri, Houmansadr, Comprehensive Privacy Analysis of Deep Learning: Passive and Active "
        "White-box Inference Attacks against Centralized and Federated Learning, 2019, "
        "https://arxiv.org/abs/1812.00910"
    )

    models: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "models")

    def fits(self) -> tuple[Fit, ...]:
        """Models trained on auxiliary records, shared with every attack that asks for the same."""
        return (ShadowModels(pairing="auxiliary"),)

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by the attack model's log-odds.

        Raises:
            NotApplicable: no labelled candidates or auxiliary records, or no weights.
            UsageError: shadow models of another recipe.
            TrainingError: an answer is NaN.
        """
        candidates, auxiliary = labelled(view, "white_box"), auxiliary_of(view, "white_box")
        fitted = shadows_of(view, "white_box")
        if view.public.net is None:
            raise NotApplicable("white_box needs the released weights; choose threat=released")
        net = Net(view.topology.net.spec)
        states = shadow_states(fitted)[: self.models]
        seen = torch.cat([_features(net, s, auxiliary, view.device) for s in counted(states)])
        model = fit_logistic(seen, fitted.tensors["member"][: self.models].flatten())
        weights = dict(view.public.net.weights or {})
        return MembershipGuess(
            model(_features(net, weights, candidates, view.device)), threshold=0.0
        )


def _features(
    net: Net, state: dict[str, torch.Tensor], samples: Samples, device: str
) -> torch.Tensor:
    """Of each record under one set of weights."""
    module = Net(net.spec, state).module().to(device)
    with torch.no_grad():
        answers = numbers(module(samples.x.to(device)).cpu())
    return torch.cat([of_answers(answers, samples), gradient_norms(module, samples, device)], dim=1)
