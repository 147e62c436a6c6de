"""Every regime learns from copies: one generator draws them, whoever trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from defenses.dpsgd import DpSgd
from privbench.contract import Net, Samples, Seat, child_rng, load_name, spec_of
from privbench.data.augmentations import Mirrored, Moved
from privbench.data.population import Population
from privbench.errors import UsageError
from privbench.regimes.base import Regime
from privbench.regimes.centralized import Centralized
from privbench.regimes.fedavg import FedAvg
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.split import Split
from privbench.regimes.training import Training, train
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.faults import Faults
from privbench.toolkit.stacked import stackable
from privbench.wire.wire import Wire

SHORT = {"epochs": 1, "augmentation": Moved()}
PRIVATE = DpSgd(noise=0.4)  # below 0.5 its epsilon takes no time


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def released(regime: Regime, net: Net, population: Population) -> Net:
    return regime.train(net, population, Wire(), rng(), "cpu").net


def same(one: Net, other: Net) -> bool:
    return all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_training_is_a_plain_loop_over_copies(net: Net, population: Population) -> None:
    recipe = Centralized(**SHORT).recipe(net, len(population.train))
    module = net.initialised(child_rng(rng(), "init")).module().train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    training = Training(recipe, population.train, rng())
    for step in training:
        chosen = step.positions.sort().values
        batch = population.train[chosen]
        x = Moved()(batch.x, child_rng(child_rng(rng(), "noise"), "augmentation", step.number))
        back = torch.searchsorted(chosen, step.positions)
        optimizer.zero_grad()
        F.cross_entropy(module(x[back]), batch.y[back]).backward()
        optimizer.step()
    assert same(training.result(), net.holding(module))


CROWD = SliceNet(crowd=Uniform(devices=4), granularity=4, **SHORT)


@pytest.mark.parametrize(
    "regime",
    [Split(**SHORT), CROWD, replace(CROWD, micro_batch=16), replace(CROWD, replicas=2)],
    ids=["split", "slicenet", "micro_batch", "replicas"],
)
def test_who_computes_in_parts_releases_the_centralized_model(
    regime: Regime, net: Net, population: Population
) -> None:
    reference = regime.equivalent()
    assert reference.augmentation == Moved()
    found, whole = (released(each, net, population) for each in (regime, reference))
    bare = released(replace(regime, augmentation=None), net, population)
    for name, tensor in whole.weights.items():
        torch.testing.assert_close(found.weights[name], tensor, rtol=1e-4, atol=1e-5)
    exact = regime in (CROWD, Split(**SHORT))
    assert same(found, whole) or not exact
    assert not same(found, bare)


@pytest.mark.parametrize(
    "regime",
    [
        replace(CROWD, faults=Faults(drop_rate=0.2)),
        FedAvg(clients=3, rounds=2, local_steps=2, augmentation=Mirrored()),
        FedAvg(clients=3, rounds=2, local_steps=2, augmentation=Mirrored(), learning=PRIVATE),
        Centralized(**SHORT, learning=PRIVATE),
    ],
    ids=["faults", "fedavg", "fedavg_dpsgd", "dpsgd"],
)
def test_other_regimes_train_alike_twice_and_otherwise_without(
    regime: Regime, net: Net, population: Population
) -> None:
    first = released(regime, net, population)
    assert same(first, released(regime, net, population))
    assert not same(first, released(replace(regime, augmentation=None), net, population))


@pytest.mark.parametrize(
    "regime", [FedAvg(clients=3, rounds=2, augmentation=Moved()), Centralized(**SHORT)]
)
def test_shadow_models_follow_the_recipe(regime: Regime, net: Net, population: Population) -> None:
    recipe = regime.recipe(net, 120)
    assert recipe.augmentation == spec_of(Moved())
    assert recipe.signature != replace(regime, augmentation=None).recipe(net, 120).signature
    assert not stackable(recipe, regime.trainer, population.train.x.shape[1:])
    shadow = load_name(regime.trainer)(recipe, population.train, rng())
    bare = load_name(regime.trainer)(replace(recipe, augmentation=None), population.train, rng())
    assert not same(shadow, bare)


def test_copies_are_of_the_type_of_the_records(net: Net, digits: Samples) -> None:
    recipe = Centralized(**SHORT).recipe(net, 60)
    few = Samples(digits.x[:60].double(), digits.y[:60])
    assert all(t.dtype == torch.float64 for t in train(recipe, few, rng()).weights.values())


def test_records_that_are_no_images_are_refused(net: Net, digits: Samples) -> None:
    recipe = Centralized(**SHORT).recipe(net, 60)
    with pytest.raises(UsageError, match=r"\(64,\) are none; type augmentation=none"):
        train(recipe, Samples(digits.x.flatten(1), digits.y), rng())


def test_own_rows_are_the_copies_that_crossed(record: Callable, population: Population) -> None:
    """What a client of split learning fed is what its activations come from, in any order of rows."""
    trained, transcript, _ = record(Split(**SHORT))
    truth, noise = population.truth, child_rng(rng(), "noise")
    module = trained.topology.net.module()
    server = Seat("split_server", "infrastructure", ("split_server",))
    (message,) = transcript.seen_by(server, (1,), ("activation",))
    module.load_state_dict(transcript.state(1))
    order = torch.randperm(len(message.rows))
    for rows, payload in (
        (message.rows, message.payload),
        (message.rows, message.payload[order]),
    ):
        asked = torch.stack([torch.full_like(rows, 1), rows], dim=1)
        x = truth.learned(asked, trained.recipe, noise).x
        torch.testing.assert_close(payload, module.relu0(module.linear0(x.flatten(1))))
        assert not torch.equal(x, truth.samples(asked).x)
        truth.shuffle({1: order})
    federated = FedAvg(augmentation=Moved()).recipe(trained.topology.net, 120)
    assert torch.equal(truth.learned(asked, federated, noise).x, truth.samples(asked).x)
