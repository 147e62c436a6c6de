"""Shadows of targets whose messages were changed, or whose devices failed, take the target's road."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from defenses.dpsgd import DpSgd
from defenses.gaussian_noise import GaussianNoise
from defenses.none import NoDefense
from defenses.quantize import Quantize
from privbench.contract import (
    Budget,
    Knowledge,
    MessageDefense,
    Net,
    Public,
    Recipe,
    child_rng,
    load_name,
    spec_of,
)
from privbench.data.population import Population
from privbench.errors import UsageError
from privbench.regimes.base import Regime, Trained
from privbench.regimes.centralized import Centralized
from privbench.regimes.fedavg import FedAvg
from privbench.regimes.over_wire import followed, train
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.split import Split
from privbench.slicenet.crowd import Device, Mixed, Uniform
from privbench.slicenet.faults import Faults
from privbench.slicenet.slicers.leakage_bounded import LeakageBounded
from privbench.toolkit.shadows import ShadowModels, check_recipe
from privbench.toolkit.stacked import stackable
from privbench.wire import codec
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.wire import Wire

CROWD = SliceNet(crowd=Uniform(devices=4), epochs=1)
FEDAVG = FedAvg(clients=4, rounds=2, local_steps=2, batch=8)
DP = DpSgd(noise=0.4)  # so little that its epsilon is quickly found
AWAY = Faults(schedule=((1, 2, "drop"), (2, 2, "return")), on_drop="skip")
NOISE, FEW = GaussianNoise(std=0.5), Quantize(bits=3)

Trains = Callable[..., Trained]


def rng(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(one: Net, other: Net) -> bool:
    return all(torch.equal(one.weights[name], other.weights[name]) for name in other.weights)


@pytest.fixture
def target(population: Population, net: Net, tmp_path: Any) -> Trains:
    """Trained as the harness trains it, by seed 5 and with somebody who listens."""

    def run(regime: Regime, *defenses: MessageDefense) -> Trained:
        tap = Recorder(tmp_path, Capture(first=2))
        wire = Wire((tap,), defenses, rng=child_rng(rng(), "wire"))
        trained = regime.train(net, population, wire, rng(), "cpu")
        tap.close()
        return followed(trained, regime, wire)

    return run


@pytest.mark.parametrize(
    ("regime", "defenses"),
    [
        (CROWD, (NOISE,)),
        (replace(CROWD, tiling="input", labels="shared"), (NoDefense(), NOISE, FEW)),
        (replace(CROWD, aggregation="secure", min_owners=3), (FEW,)),
        (replace(CROWD, faults=AWAY), (NOISE,)),
        (replace(CROWD, faults=AWAY), ()),
        (replace(CROWD, replicas=2, average_every=3), ()),
        (FEDAVG, (FEW,)),
        (replace(FEDAVG, learning=DP), (FEW,)),
        (Split(epochs=1), (NOISE, FEW)),
    ],
)
def test_a_shadow_with_the_targets_records_and_seed_is_the_target(
    regime: Regime, defenses: tuple[MessageDefense, ...], target: Trains, population: Population
) -> None:
    """The slow obvious twin is the regime itself, over the wire of the target."""
    trained = target(regime, *defenses)
    recipe: Recipe = codec.decode(codec.encode(trained.recipe))
    assert recipe.signature == trained.recipe.signature
    shadow = load_name(trained.trainer)(recipe, population.train, rng())
    assert same(shadow, trained.net)
    alone = load_name(regime.trainer)(replace(recipe, protocol=None), population.train, rng())
    assert not same(alone, trained.net)


@dataclass(frozen=True, kw_only=True)
class _Blurred(MessageDefense):
    """Records leave with noise."""

    kinds = ("samples",)
    source = "none: a double for tests"

    def send(self, message: Any, rng: torch.Generator) -> Any:
        return replace(message, payload=message.payload + 1.0)


@pytest.mark.parametrize(
    ("regime", "defenses"),
    [
        (CROWD, ()),
        (CROWD, (NoDefense(), GaussianNoise(std=0.0))),
        (replace(CROWD, aggregation="secure", min_owners=3), ()),
        (replace(CROWD, replicas=2), ()),
        (FEDAVG, (NOISE,)),  # no activation is sent
        (Centralized(epochs=1), (_Blurred(),)),  # it learns from the records as they are
    ],
)
def test_where_the_recipe_says_all_it_stays_as_it_is(
    regime: Regime, defenses: tuple[MessageDefense, ...], target: Trains, net: Net
) -> None:
    trained = target(regime, *defenses)
    plain = regime.recipe(net, 120)
    assert trained.recipe.protocol is None and trained.trainer == regime.trainer
    assert trained.recipe.signature == plain.signature
    assert stackable(trained.recipe, trained.trainer, (1, 8, 8))


def test_a_signature_from_before_there_were_protocols_is_still_that_recipes(net: Net) -> None:
    assert CROWD.recipe(net, 120).signature == "9e3c75e99b49f121"


def test_signatures_tell_protocols_apart(target: Trains) -> None:
    found = [
        target(regime, *defenses).recipe.signature
        for regime, *defenses in (
            (CROWD,),
            (CROWD, NOISE),
            (CROWD, GaussianNoise(std=0.25)),
            (replace(CROWD, crowd=Uniform(devices=5)), NOISE),
        )
    ]
    assert len(set(found)) == len(found)


def test_shadow_models_follow_the_protocol_each_with_noise_of_its_own(
    target: Trains, population: Population
) -> None:
    trained = target(CROWD, NOISE)
    public = Public(population.train, None, trained.recipe, trained.trainer)
    fitted = ShadowModels().fit(Knowledge(public, Budget(shadow_models=2)), rng(1))
    check_recipe(fitted, trained.recipe)
    records = population.train[fitted.tensors["member"][1]]
    for seed in (rng(1), rng(2)):
        slow = train(trained.recipe, records, child_rng(seed, "model", 1))
        alike = all(
            torch.equal(fitted.tensors[f"param:{k}"][1], slow.weights[k]) for k in slow.weights
        )
        assert alike == (seed.initial_seed() == 1)


def test_fewer_records_are_no_reason_to_refuse(target: Trains, population: Population) -> None:
    """A schedule, and how many owners a step has, are of the target's steps."""
    late = replace(CROWD, faults=Faults(schedule=((1, 0, "drop"), (3, 1, "drop"))))
    train(target(late, NOISE).recipe, population.train[:40], rng())
    full = replace(CROWD, aggregation="secure", min_owners=4)
    train(target(full, FEW).recipe, population.train[:40], rng(0))


def test_parts_of_parts_are_data_and_come_back() -> None:
    regime = SliceNet(
        crowd=Mixed(kinds=(Device(), Device(compute=1e8, owns=False)), devices=5),
        slicer=LeakageBounded(leakage={"net.0": 0.5}),
        faults=Faults(schedule=((1, 0, "drop"),)),
        optimizer_args={"betas": (0.9, 0.99)},
        learning=DP,
    )
    spec = codec.decode(codec.encode(spec_of(regime)))
    assert spec.build() == regime
    assert spec.kwargs["crowd"].kwargs["kinds"][1].kwargs["owns"] is False


def test_a_recipe_without_a_protocol_is_refused(net: Net, population: Population) -> None:
    with pytest.raises(UsageError, match="says its protocol"):
        train(CROWD.recipe(net, 120), population.train, rng())
