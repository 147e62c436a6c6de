"""Membership inference from the way in which a copy of the model learns its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, Fit, MembershipGuess, Net, Samples, View, child_rng, counted
from privbench.errors import NotApplicable
from privbench.toolkit.answers import log_probabilities
from privbench.toolkit.densities import FLOOR
from privbench.toolkit.evidence import auxiliary_of, labelled, shadows_of
from privbench.toolkit.logistic import fit_logistic
from privbench.toolkit.settings import above, at_least
from privbench.toolkit.shadows import ShadowModels, shadow_states


@dataclass(frozen=True, kw_only=True)
class LossTrajectory(Attack):
    """Distils the model, and follows the loss of each record over the copy's epochs.

    Liu, Zhao, Backes, Zhang, "Membership Inference Attacks by Exploiting Loss Trajectory", CCS 2022,
    https://arxiv.org/abs/2208.14933.

    We differ: distillation uses half of the auxiliary records, shadow models were trained on halves of all of
    them and are judged on the other half, and a logistic regression takes the place of a network.

    Args:
        epochs: of distillation; each gives one loss.
        models: shadow models that it learns from, at most.
        rate: of Adam.

    Example::

        privbench regime=centralized threat=released attack=loss_trajectory
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "auxiliary",
        "recipe",
        "released_weights|oracle_probabilities",
    )
    source: ClassVar[str] = (
        "Liu, Zhao, Backes, Zhang, Membership Inference Attacks by Exploiting Loss Trajectory, 2022, "
        "https://arxiv.org/abs/2208.14933"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"epochs": 5, "models": 4})

    epochs: int = 20
    models: int = 8
    rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "epochs", "models")
        above(self, 0, "rate")

    def fits(self) -> tuple[Fit, ...]:
        """Models trained on auxiliary records, shared with every attack that asks for the same."""
        return (ShadowModels(pairing="auxiliary"),)

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by the attack model's log-odds.

        Raises:
            NotApplicable: no labelled candidates, too few auxiliary records, or nothing to ask.
            UsageError: shadow models of another recipe.
        """
        candidates = labelled(view, "loss_trajectory")
        auxiliary = auxiliary_of(view, "loss_trajectory")
        fitted = shadows_of(view, "loss_trajectory")
        if len(auxiliary) < 8:
            raise NotApplicable(
                f"loss_trajectory parts the auxiliary records in two, and there are {len(auxiliary)}; "
                "expected at least 8: use more records (data.records=...)"
            )
        order = torch.randperm(len(auxiliary), generator=child_rng(rng, "parts"))
        distilled, judged = order.split([len(order) // 2, len(order) - len(order) // 2])
        teaching, judging = auxiliary[distilled], auxiliary[judged]
        net, seen, member = view.topology.net, [], []
        for number, state in enumerate(counted(shadow_states(fitted)[: self.models])):
            shadow = replace(net, weights=state)
            taught, own = (_answers(shadow, part.x, view.device) for part in (teaching, judging))
            draws = child_rng(rng, "shadow", number)
            path = self._path(net, teaching.x, taught, judging, draws, view.device)
            seen.append(torch.cat([path, _losses(own, judging)[:, None]], dim=1))
            member.append(fitted.tensors["member"][number, judged])
        model = fit_logistic(torch.cat(seen), torch.cat(member))
        taught, own = (log_probabilities(view, part.x) for part in (teaching, candidates))
        draws = child_rng(rng, "target")
        path = self._path(net, teaching.x, taught, candidates, draws, view.device)
        scores = model(torch.cat([path, _losses(own, candidates)[:, None]], dim=1))
        return MembershipGuess(scores, threshold=0.0)

    def _path(
        self,
        net: Net,
        x: Float[Tensor, "n ..."],
        taught: Float[Tensor, "n classes"],
        followed: Samples,
        rng: torch.Generator,
        device: str,
    ) -> Float[Tensor, "m epochs"]:
        """Losses of some records after each epoch of a copy that learns these answers."""
        copy = net.initialised(child_rng(rng, "init")).module().to(device)
        optimizer = torch.optim.Adam(copy.parameters(), lr=self.rate)
        draws, wanted = child_rng(rng, "batches"), taught.exp().float().to(device)
        inputs, found = x.to(device), []
        for _ in range(self.epochs):
            for batch in torch.randperm(len(x), generator=draws).split(32):
                optimizer.zero_grad()
                F.cross_entropy(copy(inputs[batch]), wanted[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                said = copy(followed.x.to(device)).double().cpu()
            found.append(_losses(said, followed))
        return torch.stack(found, dim=1)


def _answers(net: Net, x: Tensor, device: str) -> Float[Tensor, "n classes"]:
    with torch.no_grad():
        return net.module().to(device)(x.to(device)).double().cpu().log_softmax(-1)


def _losses(log_p: Float[Tensor, "n classes"], samples: Samples) -> Float[Tensor, " n"]:
    """Cross-entropy of each record's label."""
    if samples.y is None:
        raise NotApplicable("a loss needs labels, and these records have none")
    log_p = log_p.log_softmax(-1).clamp(min=FLOOR)
    return -log_p.gather(1, samples.y[:, None])[:, 0]
