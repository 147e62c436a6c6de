"""Membership of every record in several models of one recipe, each attacked by means of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privbench.contract import Budget, Knowledge, Public, Recipe, Samples
from privbench.scoring.statistics import auc, tpr_at
from privbench.toolkit.densities import confidence, deviations, log_ratio
from privbench.toolkit.evidence import Evidence
from privbench.toolkit.likelihoods import average_log_p, outside_log_p
from privbench.toolkit.shadows import ShadowModels, shadow_logits

SIDE = 2  # models on either side of a record that a likelihood ratio needs


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Models trained on halves of the same records, each half drawn for itself.

    Args:
        confidence, log_p: each model's logit-scaled confidence in each record's label, and the
            label's log-probability.
        right: whether it is each model's first choice.
        member: which model was trained on which record.
    """

    confidence: Float[Tensor, "models n"]
    log_p: Float[Tensor, "models n"]
    right: Bool[Tensor, "models n"]
    member: Bool[Tensor, "models n"]

    def judged(self, target: int) -> Bool[Tensor, " n"]:
        """Records that enough of the other models were trained on, and enough were not.

        Coins are fair and each model's own, so that this says nothing of the target's.
        """
        inside = self.member.sum(dim=0) - self.member[target].long()
        return (inside >= SIDE) & (len(self.member) - 1 - inside >= SIDE)

    def against(self, target: int) -> Evidence:
        """One model as the target, the others as its shadows, on the records that can be judged."""
        others, kept = torch.arange(len(self.member)) != target, self.judged(target)
        return Evidence(
            self.confidence[target, kept], self.log_p[target, kept], self.confidence[others][:, kept],
            self.log_p[others][:, kept], self.member[others][:, kept],
        )  # fmt: skip

    def accuracies(self) -> tuple[float, float]:
        """On the records that a model was trained on, and on the others: means over models."""
        right = self.right.double()
        return float(right[self.member].mean()), float(right[~self.member].mean())


def ensemble(samples: Samples, recipe: Recipe, models: int, device: str = "cpu") -> Ensemble:
    """Train them, as the shadow models of an attack are trained."""
    public = Public(candidates=samples, recipe=recipe, trainer="privbench.regimes.training.train")
    knowledge = Knowledge(public, Budget(shadow_models=models), device=device, workers=1)
    fitted = ShadowModels(pairing="independent").fit(knowledge, torch.Generator().manual_seed(0))
    logits = shadow_logits(fitted, recipe.net, samples.x.to(device)).double().cpu()
    y = samples.y
    assert y is not None
    log_p = logits.log_softmax(-1).gather(-1, y.expand(models, -1)[..., None]).squeeze(-1)
    right = logits.argmax(-1) == y
    return Ensemble(confidence(logits, y), log_p, right, fitted.tensors["member"])


Score = Callable[[Evidence], Float[Tensor, " n"]]


def _offline(variance: str) -> Score:
    def score(said: Evidence) -> Tensor:
        return deviations(said.confidence, said.shadow_confidence, variance, member=said.member)

    return score


def _online(variance: str) -> Score:
    def score(said: Evidence) -> Tensor:
        return log_ratio(said.confidence, said.shadow_confidence, said.member, variance)

    return score


SCORES: dict[str, Score] = {
    "lira": _online("global"),
    "lira_per_example": _online("per_example"),
    "lira_offline": _offline("global"),
    "base": lambda said: said.log_p - average_log_p(said.shadow_log_p),
    "base_offline": lambda said: said.log_p - outside_log_p(said, 1.0),
    "loss_threshold": lambda said: said.log_p,
}


@dataclass(frozen=True)
class Strength:
    """Means over targets."""

    auc: float
    sd: float
    """Standard deviation over targets of the AUC."""
    tpr: dict[float, float]
    """By false positive rate."""

    def words(self) -> str:
        rates = ", ".join(
            f"{100 * rate:.1f} % at {100 * fpr:g} %" for fpr, rate in self.tpr.items()
        )
        return f"{self.auc:.3f} ({rates})"


def strength(found: Ensemble, name: str, targets: int, rates: tuple[float, ...]) -> Strength:
    """How well a preset tells who was in each of the first ``targets`` models."""
    areas, shares = [], []
    for target in range(targets):
        scores = SCORES[name](found.against(target)).numpy()
        inside = found.member[target, found.judged(target)].numpy()
        areas.append(auc(scores, inside))
        shares.append([tpr_at(scores, inside, rate) for rate in rates])
    means = np.mean(shares, axis=0).tolist()
    return Strength(
        float(np.mean(areas)), float(np.std(areas, ddof=1)), dict(zip(rates, means, strict=True))
    )
