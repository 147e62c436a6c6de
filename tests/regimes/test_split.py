"""Split learning: centralized training, cut in two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from defenses.dpsgd import DpSgd
from privbench.contract import Net, Seat
from privbench.data.population import Population
from privbench.errors import UsageError
from privbench.regimes.centralized import Centralized
from privbench.regimes.split import Split
from privbench.wire.wire import Wire

SERVER = Seat("split_server", "infrastructure", ("split_server",))
SHORT = Split(epochs=2)


def test_it_computes_what_centralized_training_computes(record: Callable) -> None:
    cut, _, _ = record(SHORT)
    whole, _, _ = record(Centralized(epochs=2))
    assert cut.recipe.signature == whole.recipe.signature
    assert all(torch.equal(cut.net.weights[k], whole.net.weights[k]) for k in whole.net.weights)
    assert SHORT.equivalent() == Centralized(epochs=2)


def test_messages_hold_what_their_rows_give(record: Callable, population: Population) -> None:
    trained, transcript, _ = record(SHORT)
    module = trained.topology.net.module()
    for message in transcript.seen_by(SERVER, (0, 5), ("activation",)):
        rows = torch.stack([torch.full_like(message.rows, message.step), message.rows], dim=1)
        module.load_state_dict(transcript.state(message.step))
        x = population.truth.samples(rows).x
        torch.testing.assert_close(message.payload, module.relu0(module.linear0(x.flatten(1))))


def test_gradients_that_return_are_those_of_the_mean_loss(
    record: Callable, population: Population
) -> None:
    trained, transcript, _ = record(SHORT)
    module = trained.topology.net.module()
    module.load_state_dict(transcript.state(2))
    seen = {
        m.kind: m for m in transcript.seen_by(SERVER, (2,), ("activation", "labels", "gradient"))
    }
    smashed = seen["activation"].payload.clone().requires_grad_()
    logits = module.linear2(module.relu1(module.linear1(smashed)))
    torch.nn.functional.cross_entropy(logits, seen["labels"].payload).backward()
    torch.testing.assert_close(seen["gradient"].payload, smashed.grad)


def test_samples_never_cross(record: Callable) -> None:
    _, transcript, _ = record(SHORT)
    assert {m.kind for m in transcript.messages} == {"activation", "labels", "gradient"}


def test_query_pairs_are_the_clients_part(record: Callable, population: Population) -> None:
    trained, transcript, _ = record(SHORT)
    states = {step: transcript.state(step) for step in (1, 3)}
    pairs = SHORT.query_pairs(trained, states, population.auxiliary.x)
    assert [pair.step for pair in pairs] == [1, 3]
    module = trained.topology.net.module()
    module.load_state_dict(states[3])
    expected = module.relu0(module.linear0(population.auxiliary.x.flatten(1)))
    torch.testing.assert_close(pairs[1].activation, expected)
    assert pairs[1].layer == trained.topology.layers[0].name


def test_the_server_holds_all_but_the_stem(record: Callable) -> None:
    trained, _, _ = record(replace(SHORT, stem=1))
    assert [layer.place for layer in trained.topology.layers] == ["stem", "body", "body"]
    assert trained.topology.hosted("split_server") == ("linear1", "linear2")


def test_learning_defenses_are_refused(population: Population, net: Net) -> None:
    regime = replace(SHORT, learning=DpSgd())
    with pytest.raises(UsageError, match=r"regime.learning"):
        regime.train(net, population, Wire(), torch.Generator(), "cpu")
