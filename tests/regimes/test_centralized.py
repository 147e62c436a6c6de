"""What a centralized trainer sees, and where a matched one stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from privbench.contract import Net, Seat
from privbench.data.population import Population
from privbench.errors import TrainingError, UsageError
from privbench.regimes.centralized import Centralized
from privbench.regimes.training import accuracy, train
from privbench.wire.wire import Wire

SHORT = Centralized(epochs=3)
TRAINER = Seat("trainer", "infrastructure", ("trainer",))


def test_every_record_crosses_once_and_the_truth_knows_it(
    record: Callable, population: Population
) -> None:
    _, transcript, _ = record(SHORT)
    seen = []
    for message in transcript.seen_by(TRAINER, transcript.steps, ("samples",)):
        rows = torch.stack([torch.full_like(message.rows, message.step), message.rows], dim=1)
        assert torch.equal(population.truth.samples(rows).x, message.payload)
        seen.append(population.truth.sample_of(rows))
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(len(population.train)))


def test_labels_cross_with_their_records(record: Callable, population: Population) -> None:
    _, transcript, _ = record(SHORT)
    for message in transcript.seen_by(TRAINER, transcript.steps, ("labels",)):
        rows = torch.stack([torch.full_like(message.rows, message.step), message.rows], dim=1)
        assert torch.equal(population.truth.samples(rows).y, message.payload)


def test_the_trainer_trains_as_a_shadow_does(record: Callable, population: Population) -> None:
    trained, _, _ = record(SHORT)
    shadow = train(trained.recipe, population.train, torch.Generator().manual_seed(5))
    assert all(torch.equal(shadow.weights[k], trained.net.weights[k]) for k in shadow.weights)


def test_bytes_are_counted_per_visit(record: Callable, population: Population) -> None:
    trained, _, wire = record(SHORT)
    batches = 4  # 120 records in batches of 32
    sent = 120 * (64 * 4 + 8) + 2 * batches * 32
    assert sum(wire.bytes.values()) == sent
    assert trained.bytes_per_sample == sent / (3 * 120)


def test_weights_in_force_are_those_before_the_step(
    record: Callable, population: Population
) -> None:
    trained, transcript, _ = record(SHORT)
    one_step = replace(trained.recipe, steps=1)
    state = transcript.state(1)
    assert state is not None
    first = train(one_step, population.train, torch.Generator().manual_seed(5))
    assert all(torch.equal(first.weights[name], state[name]) for name in state)


def test_matched_stops_at_the_first_step_that_is_good_enough(
    population: Population, net: Net
) -> None:
    rng = torch.Generator().manual_seed(5)
    weak = Centralized(epochs=10)
    reference = train(weak.recipe(net, 120), population.train, rng)
    goal = accuracy(reference.module(), population.auxiliary)
    trained = Centralized(match=weak).train(net, population, Wire(), rng, "cpu")
    assert accuracy(trained.net.module(), population.auxiliary) >= goal
    assert trained.recipe.steps == trained.topology.steps
    earlier = replace(trained.recipe, steps=trained.recipe.steps - 1)
    before = train(earlier, population.train, rng)
    assert accuracy(before.module(), population.auxiliary) < goal
    shadow = train(trained.recipe, population.train, rng)
    assert all(torch.equal(shadow.weights[k], trained.net.weights[k]) for k in shadow.weights)


def test_an_accuracy_out_of_reach_is_an_error(population: Population, net: Net) -> None:
    regime = Centralized(epochs=1, stop_at=0.999)
    with pytest.raises(TrainingError, match=r"0.999"):
        regime.train(net, population, Wire(), torch.Generator().manual_seed(5), "cpu")


def test_stopping_needs_auxiliary_records_and_one_goal(population: Population, net: Net) -> None:
    rng = torch.Generator().manual_seed(5)
    bare = replace(population, auxiliary=None)
    with pytest.raises(UsageError, match="thirds"):
        Centralized(stop_at=0.5).train(net, bare, Wire(), rng, "cpu")
    with pytest.raises(UsageError, match="both"):
        Centralized(stop_at=0.5, match=SHORT).train(net, population, Wire(), rng, "cpu")


@pytest.mark.parametrize("field", ["lr", "epochs", "batch"])
def test_settings_that_train_nothing_are_refused(net: Net, field: str) -> None:
    with pytest.raises(UsageError, match=f"regime.{field}=0"):
        replace(SHORT, **{field: 0}).recipe(net, 120)


def test_equal_settings_make_equal_signatures(net: Net) -> None:
    assert SHORT.recipe(net, 120).signature == Centralized(epochs=3).recipe(net, 120).signature
    assert SHORT.recipe(net, 120).signature != Centralized(epochs=4).recipe(net, 120).signature
