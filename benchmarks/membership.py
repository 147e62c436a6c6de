"""Membership on the bench configuration: every stacked model a target, the others its shadows.

``python benchmarks/membership.py``: all 1,797 digits are candidates, each of 129 models 64-128-10 is
trained on a random half of its own; 64 of them are targets, each with all the others as shadows.

Halves are independent: where the models come in complementary pairs and a target's partner stays
among its shadows, the mean AUC rises by 0.018, because who is in the partner is who is not in the
target. That is a leak of the experiment, not of the model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

try:
    from benchmarks.shadows import digits, recipe
except ImportError:  # run as a file: this folder is on the path, its parent is not
    from shadows import digits, recipe

from privbench.contract import Budget, Knowledge, Public
from privbench.toolkit.densities import confidence, log_ratio
from privbench.toolkit.shadows import ShadowModels, shadow_logits

SHADOWS, TARGETS = 128, 64


@dataclass(frozen=True)
class Membership:
    """Means over targets, and the standard deviation over targets of the first."""

    targets: int
    shadow_models: int
    auc: float
    auc_sd: float
    tpr_at_1pct_fpr: float
    loss_auc: float
    seconds: float


def area(scores: Float[Tensor, " n"], member: Bool[Tensor, " n"]) -> float:
    """AUC with mid-ranks."""
    _, place, count = scores.unique(return_inverse=True, return_counts=True)
    ranks = (count.cumsum(0).double() - (count - 1) / 2)[place]
    inside, outside = int(member.sum()), int((~member).sum())
    return float(ranks[member].sum() - inside * (inside + 1) / 2) / (inside * outside)


def rate(scores: Float[Tensor, " n"], member: Bool[Tensor, " n"], fpr: float = 0.01) -> float:
    """Share of members above the least threshold that at most ``fpr`` of the others exceed."""
    allowed = int(fpr * int((~member).sum()))
    threshold = scores[~member].sort(descending=True).values[allowed]
    return float((scores[member] > threshold).double().mean())


def measure(seed: int = 0, shadows: int = SHADOWS, targets: int = TARGETS) -> Membership:
    """Train ``shadows + 1`` models and attack ``targets`` of them."""
    before, start = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    try:
        samples, how = digits(), recipe()
        public = Public(candidates=samples, recipe=how, trainer="privbench.regimes.training.train")
        knowledge = Knowledge(public, Budget(shadow_models=shadows + 1))
        fitted = ShadowModels(pairing="independent").fit(
            knowledge, torch.Generator().manual_seed(seed)
        )
        logits = shadow_logits(fitted, how.net, samples.x)
    finally:
        torch.set_num_threads(before)
    phi, member = confidence(logits, samples.y), fitted.tensors["member"]
    losses = -logits.double().log_softmax(-1)
    areas, rates, loss_areas = [], [], []
    for target in range(targets):
        kept = torch.arange(len(member)) != target
        scores = log_ratio(phi[target], phi[kept], member[kept], "global")
        areas.append(area(scores, member[target]))
        rates.append(rate(scores, member[target]))
        loss = losses[target].gather(1, samples.y[:, None]).squeeze(1)
        loss_areas.append(area(-loss, member[target]))
    auc = torch.tensor(areas)
    return Membership(
        targets=targets,
        shadow_models=shadows,
        auc=float(auc.mean()),
        auc_sd=float(auc.std()),
        tpr_at_1pct_fpr=float(torch.tensor(rates).mean()),
        loss_auc=float(torch.tensor(loss_areas).mean()),
        seconds=time.perf_counter() - start,
    )


if __name__ == "__main__":
    found = measure()
    print(
        f"{found.targets} targets, {found.shadow_models} shadow models each: mean AUC "
        f"{found.auc:.3f} (sd {found.auc_sd:.3f}), mean TPR at 1 % FPR {found.tpr_at_1pct_fpr:.1%}, "
        f"loss alone {found.loss_auc:.3f}, {found.seconds:.0f} s"
    )
