"""A model that memorised, one that never saw the candidates, and all attacks on such models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from attacks.membership.base import Base
from attacks.membership.boundary import Boundary
from attacks.membership.difficulty_calibration import DifficultyCalibration
from attacks.membership.entropy import Entropy
from attacks.membership.gap import Gap
from attacks.membership.lira import Lira
from attacks.membership.loss_threshold import LossThreshold
from attacks.membership.loss_trajectory import LossTrajectory
from attacks.membership.modified_entropy import ModifiedEntropy
from attacks.membership.population import Population
from attacks.membership.quantile_regression import QuantileRegression
from attacks.membership.reference import Reference
from attacks.membership.rmia import Rmia
from attacks.membership.shadow_classifier import ShadowClassifier
from attacks.membership.white_box import WhiteBox
from privbench.contract import (
    Attack,
    Budget,
    Fitted,
    Knowledge,
    MembershipGuess,
    Net,
    Public,
    Recipe,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
    child_rng,
)
from privbench.toolkit.stacked import train_stacked

TRAIN = "privbench.regimes.training.train"
NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": (36, 48, 6)}))
RECIPE = Recipe(NET, Spec("torch.optim.Adam", {"lr": 1e-2}), epochs=20, batch=20)
CANDIDATES, AUXILIARY = 160, 160
ATTACKS = [
    LossThreshold(), Entropy(), ModifiedEntropy(), Gap(), Boundary(copies=4, levels=(0.05, 0.1, 0.2)),
    Population(), QuantileRegression(epochs=20),
    Reference(), DifficultyCalibration(), ShadowClassifier(), WhiteBox(models=4),
    LossTrajectory(epochs=3, models=4),
    Lira(), Lira(variance="per_example"), Lira(mode="offline"), Lira(convention="tail"), Lira(queries=2),
    Rmia(), Rmia(mode="offline"), Base(), Base(mode="offline"),
]  # fmt: skip
"""Every attack on a released model, with settings that take no time."""


@dataclass(frozen=True)
class World:
    """A target and its shadows; ``member`` is known to the test alone."""

    view: View
    stranger: View  # the same seat, before a target trained on other records
    member: torch.Tensor
    shadows: dict[str, Fitted]  # by attack.mode

    def seen_by(self, attack: Attack, view: View) -> View:
        """The view that the harness would give this attack: with its shadow models, if it has any."""
        if not attack.fits():
            return view
        return replace(view, fitted=(self.shadows[getattr(attack, "mode", "offline")],))


def built() -> World:
    """Images near six prototypes; a third of the labels is wrong, so that learning is memorising."""
    rng = torch.Generator().manual_seed(4)
    total = 2 * CANDIDATES + AUXILIARY
    y = torch.randint(6, (total,), generator=rng)
    prototypes = torch.rand(6, 1, 6, 6, generator=rng)
    x = (prototypes[y] + 0.3 * torch.randn(total, 1, 6, 6, generator=rng)).clamp(0, 1)
    wrong = torch.rand(total, generator=rng) < 0.33
    everyone = Samples(x, torch.where(wrong, torch.randint(6, (total,), generator=rng), y))
    candidates, others = everyone[:CANDIDATES], everyone[CANDIDATES : 2 * CANDIDATES]
    auxiliary = everyone[2 * CANDIDATES :]
    chosen = torch.randperm(CANDIDATES, generator=rng)[: CANDIDATES // 2]
    member = torch.zeros(CANDIDATES, dtype=torch.bool).index_fill(0, chosen, True)
    public = Public(candidates=candidates, auxiliary=auxiliary, recipe=RECIPE, trainer=TRAIN)
    knowledge = Knowledge(public, Budget(shadow_models=16))
    views = []
    for name, pool in (("target", candidates), ("stranger", others)):
        stack = train_stacked(RECIPE, pool, member[None], [child_rng(rng, name)])
        seat = Seat("anyone", "outsider", grants=frozenset({"candidates", "released_weights"}))
        topology = Topology("centralized", ("world",), (), NET, steps=0, steps_per_epoch=0)
        net = replace(NET, weights=stack.of(0))
        victims = torch.empty(0, 2, dtype=torch.int64)
        views.append(View(seat, topology, victims, public=replace(public, net=net)))
    shadows = {
        mode: Lira(mode=mode).fits()[0].fit(knowledge, child_rng(rng, mode))
        for mode in ("online", "offline")
    }
    return World(views[0], views[1], member, shadows)


def run(world: World, attack: Attack, view: View) -> MembershipGuess:
    guess = attack.run(world.seen_by(attack, view), torch.Generator().manual_seed(0))
    assert isinstance(guess, MembershipGuess)
    return guess
