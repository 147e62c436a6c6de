"""Federated averaging against its definition, and what server and clients see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from defenses.dpsgd import DpSgd
from privbench.contract import Message, MessageDefense, Net, Seat
from privbench.data.population import Population
from privbench.errors import UsageError
from privbench.regimes.fedavg import FedAvg, federated_train
from privbench.wire.wire import Wire

SMALL = FedAvg(clients=4, rounds=3, local_steps=2, batch=8)
SERVER = Seat("server", "infrastructure", ("server",))


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def of(transcript, kind: str, step: int, party: str) -> list[Message]:
    """A client's messages of one kind in one round."""
    seen = transcript.seen_by(SERVER, (step,), (kind,))
    return [message for message in seen if party in (message.sender, message.receiver)]


def records_of(population: Population, message: Message):
    rows = torch.stack([torch.full_like(message.rows, message.step), message.rows], dim=1)
    return population.truth.samples(rows)


def test_shadows_are_trained_as_the_regime_trains(record: Callable, population: Population) -> None:
    trained, _, _ = record(SMALL)
    shadow = federated_train(trained.recipe, population.train, rng())
    assert all(torch.equal(shadow.weights[k], trained.net.weights[k]) for k in shadow.weights)


def test_nobody_listening_changes_nothing(
    record: Callable, population: Population, net: Net
) -> None:
    """Messages that nobody keeps are counted, not built: same model, same bytes."""
    loud, _, heard = record(SMALL)
    wire = Wire()
    quiet = SMALL.train(net, population, wire, rng(), "cpu")
    assert all(torch.equal(quiet.net.weights[k], loud.net.weights[k]) for k in loud.net.weights)
    assert wire.bytes == heard.bytes


def test_a_one_step_update_is_the_gradient_of_its_rows(
    record: Callable, population: Population
) -> None:
    trained, transcript, _ = record(replace(SMALL, local_steps=1, lr=0.5))
    for step in range(3):
        messages = of(transcript, "update", step, "client-2")
        batch = records_of(population, messages[0])
        module = trained.topology.net.module()
        module.load_state_dict(transcript.state(step))
        F.cross_entropy(module(batch.x), batch.y).backward()
        for message in messages:
            gradient = dict(module.named_parameters())[message.layer].grad
            torch.testing.assert_close(message.payload, -0.5 * gradient, atol=1e-6, rtol=1e-4)


def test_the_next_global_model_is_the_weighted_sum_of_updates(record: Callable) -> None:
    _, transcript, _ = record(replace(SMALL, clients=7))  # 120 records: shares of 18 and 17
    now = {m.layer: m.payload for m in of(transcript, "global_weights", 0, "client-0")}
    then = {m.layer: m.payload for m in of(transcript, "global_weights", 1, "client-6")}
    sizes = torch.arange(120).tensor_split(7)
    for name, tensor in now.items():
        updates = [
            message.payload * (len(sizes[client]) / 120)
            for client in range(7)
            for message in of(transcript, "update", 0, f"client-{client}")
            if message.layer == name
        ]
        torch.testing.assert_close(then[name], tensor + torch.stack(updates).sum(0))


def test_rows_belong_to_the_client_that_sent_them(record: Callable, population: Population) -> None:
    _, transcript, _ = record(SMALL)
    for step in range(3):
        named = []
        for client in range(4):
            message = of(transcript, "update", step, f"client-{client}")[0]
            rows = torch.stack([torch.full_like(message.rows, step), message.rows], dim=1)
            assert set(population.truth.owners_of(rows).tolist()) == {client}
            assert set(transcript.owners[step][message.rows].tolist()) == {client}
            named.append(message.rows)
        assert torch.equal(torch.cat(named), torch.arange(len(transcript.owners[step])))


def test_a_round_names_a_record_once(record: Callable, population: Population) -> None:
    """Four steps of 10 over 30 records visit some twice; a row stands for a record."""
    _, transcript, _ = record(replace(SMALL, local_steps=4, batch=10))
    message = of(transcript, "update", 0, "client-0")[0]
    rows = torch.stack([torch.zeros_like(message.rows), message.rows], dim=1)
    positions = population.truth.sample_of(rows).tolist()
    assert len(positions) == len(set(positions)) == 30


def test_the_server_goes_on_with_what_was_delivered(population: Population, net: Net) -> None:
    """Updates that are wiped on the way leave the model where it started."""

    class Wiped(MessageDefense):
        kinds = ("update",)
        source = "a double"

        def send(self, message: Message, rng: torch.Generator) -> Message:
            return replace(message, payload=torch.zeros_like(message.payload))

    wire = Wire(defenses=(Wiped(),))
    regime = replace(SMALL)
    start = net.initialised(rng())
    from privbench.regimes.fedavg import OverWire, federate

    shares = population.share(4, rng())
    exchange = OverWire(wire, population, [f"client-{k}" for k in range(4)])
    trained = federate(regime.recipe(start, 120), population.train, shares, rng(), exchange).net
    assert all(torch.equal(trained.weights[k], start.weights[k]) for k in trained.weights)


@pytest.mark.parametrize("field", ["clients", "rounds", "local_steps"])
def test_settings_that_train_nothing_are_refused(net: Net, field: str) -> None:
    with pytest.raises(UsageError, match=f"regime.{field}=0"):
        replace(SMALL, **{field: 0}).recipe(net, 120)


def test_more_clients_than_records_are_refused(population: Population, net: Net) -> None:
    with pytest.raises(UsageError, match=r"regime.clients"):
        replace(SMALL, clients=200).train(net, population, Wire(), rng(), "cpu")


def test_the_guarantee_at_the_clients_covers_who_hears_their_updates(record: Callable) -> None:
    noised = replace(SMALL, rounds=1, learning=DpSgd(noise=2.0))
    cost = record(noised)[0].privacy
    assert cost is not None and cost.covers == "updates"
    assert all(cost.holds_for(threat) for threat in ("released", "api", "server", "client", "wire"))
    assert not any(cost.holds_for(threat) for threat in ("host", "trainer", "iterates"))
