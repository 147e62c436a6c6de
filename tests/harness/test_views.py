"""What a view holds, and what it must not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from privbench.contract import KINDS, Message, Seat, View
from privbench.views import owned_by, rows_of

SLICENET = ("regime=slicenet", "crowd.devices=4", "regime.granularity=4")
FEDAVG = ("regime=fedavg", "regime.clients=3", "regime.rounds=3")
INSIDERS = {
    "host": (*SLICENET, "attack=ridge_decoder"),
    "link": (*SLICENET, "attack=ridge_decoder"),
    "owner": (*SLICENET, "attack=gradient_inversion"),
    "coordinator": (*SLICENET, "attack=gradient_inversion"),
    "client": (*FEDAVG, "attack=gradient_inversion"),
}


@pytest.fixture(params=INSIDERS, ids=str)
def insider(request: pytest.FixtureRequest, rig: Callable) -> Any:
    return rig(*INSIDERS[request.param], f"threat={request.param}")


def _told(messages: Iterable[Message]) -> Counter:
    """How many numbers each link carried, by step, kind, sender, receiver and layer."""
    found: Counter = Counter()
    for m in messages:
        found[m.step, m.kind, m.sender, m.receiver, m.layer] += m.payload.numel()
    return found


def test_a_seat_sees_its_own_links_and_all_of_them(insider: Any) -> None:
    transcript, plan = insider.target.transcript, insider.plan
    steps = plan.threat.looks_at(transcript.steps, insider.target.topology.steps_per_epoch)
    kinds = [k for k in plan.threat.kinds if k in plan.attack.reads]
    everywhere = Seat("all", "network", everything=True)
    crossed = list(transcript.seen_by(everywhere, steps, KINDS))
    for view in insider.views():
        passing = [m for m in crossed if view.seat.sees(m.sender, m.receiver)]
        mine = [m for m in passing if m.kind in kinds]
        assert 0 < len(mine) < len(crossed), (
            "this seat would see everything; the test shows nothing"
        )
        assert _told(view.messages) == _told(mine)


def test_a_view_holds_no_step_or_kind_beyond_its_threat(insider: Any) -> None:
    recorded = insider.target.transcript.steps
    threat = replace(insider.plan.threat, steps="last:2")
    for view in insider.views(threat=threat):
        assert view.steps() == recorded[-2:]
        assert {weights.step for weights in view.weights} <= set(recorded[-2:])
        assert {m.kind for m in view.messages} <= set(threat.kinds) & set(insider.plan.attack.reads)


def test_victims_are_rows_that_the_seat_saw(insider: Any) -> None:
    for view in insider.views():
        seen = {tuple(row) for row in rows_of(view.messages, insider.plan.attack.reads).tolist()}
        victims = [tuple(row) for row in view.victims.tolist()]
        assert victims
        assert set(victims) <= seen
        assert victims == sorted(victims), "the order of victims says something"


def test_a_seats_own_samples_are_never_victims(insider: Any) -> None:
    truth, asked = insider.opened.truth, 10**6  # every sample that can be one
    for view in insider.views(victims=asked):
        mine = owned_by(view.seat, view.topology)
        assert len(view.victims)
        assert not set(truth.owners_of(view.victims).tolist()) & mine
        if "own_samples" not in view.seat.grants:
            assert view.own is None
            continue
        assert view.own is not None
        assert set(truth.owners_of(view.own.rows).tolist()) == mine
        assert torch.equal(view.own.samples.x, truth.samples(view.own.rows).x)


def test_nothing_in_a_view_can_be_differentiated(insider: Any) -> None:
    for view in insider.views():
        for message in view.messages:
            assert not message.payload.requires_grad
            assert message.payload.grad_fn is None


def test_architecture_and_recipe_come_without_weights(insider: Any) -> None:
    for view in insider.views():
        assert view.topology.net.weights is None
        assert view.public.recipe is not None
        assert view.public.recipe.net.weights is None


@pytest.mark.parametrize(
    "words",
    [("regime=centralized", "threat=released"), ("regime=split", "threat=split_server")],
    ids=lambda words: words[0],
)
def test_architecture_and_recipe_come_without_weights_elsewhere(
    words: tuple[str, ...], rig: Callable
) -> None:
    (view,) = rig(*words).views()
    assert view.topology.net.weights is None
    assert view.public.recipe is not None
    assert view.public.recipe.net.weights is None


FIELDS = {
    "candidates": "candidates",
    "auxiliary": "auxiliary",
    "recipe": "recipe",
    "released_weights": "net",
    "stale_weights": "net",
}


@pytest.mark.parametrize("grant", FIELDS)
def test_public_knowledge_comes_by_grant_alone(grant: str, rig: Callable) -> None:
    one = rig("regime=centralized", "threat=released", "attack=loss_threshold")
    bare = replace(one.seats[0], grants=frozenset())
    holder = replace(one.seats[0], grants=frozenset({grant}))
    nothing, something = (replace(one, seats=(seat,)).views()[0] for seat in (bare, holder))
    for field in ("candidates", "auxiliary", "recipe", "trainer", "net"):
        assert getattr(nothing.public, field) is None, field
        wanted = field == FIELDS[grant] or (grant == "recipe" and field == "trainer")
        assert (getattr(something.public, field) is not None) is wanted, field


@pytest.mark.parametrize(
    ("attack", "given"),
    [("loss_threshold", True), ("mi_face", False), ("blind_reconstruction", False)],
)
def test_candidates_are_for_who_guesses_membership(attack: str, given: bool, rig: Callable) -> None:
    (view,) = rig("regime=centralized", "threat=trainer", f"attack={attack}").views()
    assert "candidates" in view.seat.grants
    assert (view.public.candidates is not None) is given


@pytest.mark.parametrize("threat", ["wire", "link"])
def test_an_encrypted_wire_tells_its_taps_nothing(threat: str, crowd: Callable) -> None:
    for clear in crowd(f"threat={threat}").views():
        assert clear.messages
        assert clear.victims.numel()
    for hidden in crowd(f"threat={threat}", "encrypted=true").views():
        assert not hidden.messages
        assert not hidden.weights
        assert not hidden.victims.numel()


def test_hosts_keep_what_they_decrypt(crowd: Callable) -> None:
    clear, hidden = crowd("threat=host").views(), crowd("threat=host", "encrypted=true").views()
    for one, other in zip(clear, hidden, strict=True):
        assert other.topology.encrypted
        assert _told(one.messages) == _told(other.messages)


def _layers(view: View) -> set[str]:
    return {weights.layer for weights in view.weights}


def test_a_host_holds_its_own_rows_of_each_layer_and_no_other(crowd: Callable) -> None:
    trained = crowd("threat=host")
    topology = trained.target.topology
    for view in trained.views():
        party = view.seat.parties[0]
        outside = {layer.name for layer in topology.layers if layer.place in ("stem", "tail")}
        assert _layers(view) == set(topology.hosted(party)) | outside
        for weights in view.weights:
            if weights.layer in outside:
                continue
            units = {u for s in topology.slices if s.party == party for u in s.units
                     if s.layer == weights.layer}  # fmt: skip
            assert weights.units is not None
            assert set(weights.units) <= units
            assert len(units) < topology.layer(weights.layer).channels, "the seat hosts all of it"
            state = trained.target.transcript.state(weights.step) or {}
            for name, tensor in weights.tensors.items():
                assert torch.equal(tensor, state[name][list(weights.units)])


def test_stem_and_tail_come_with_batches_in_which_a_device_takes_part(crowd: Callable) -> None:
    trained = crowd("threat=host")
    owners, missed = trained.target.transcript.owners, 0
    for view in trained.views():
        (number,) = owned_by(view.seat, view.topology)
        for step in view.steps():
            held = {w.layer for w in view.weights if w.step == step}
            took_part = bool((owners[step] == number).any())
            missed += not took_part
            assert ("linear0" in held) is took_part
    away = replace(trained.seats[0], parties=("device-9",), grants=frozenset({"own_weights"}))
    (view,) = replace(trained, seats=(away,)).views()
    assert not view.weights, "who owns and hosts nothing holds nothing"


def test_a_coordinator_holds_stem_and_tail_and_never_the_body(crowd: Callable) -> None:
    trained = crowd("threat=coordinator", "attack=gradient_inversion")
    (view,) = trained.views()
    outside = {layer.name for layer in view.topology.layers if layer.place in ("stem", "tail")}
    assert _layers(view) == outside
    assert view.public.net is None
    assert not view.select("activation", "gradient")


def test_a_coordinator_gets_the_released_model_by_the_switch(crowd: Callable) -> None:
    words = ("threat=coordinator", "threat.stale_weights=true", "attack=gradient_inversion")
    (view,) = crowd(*words).views()
    assert view.public.net is not None
    assert view.public.net.weights is not None


def test_initial_weights_are_those_of_step_0_alone(crowd: Callable) -> None:
    trained = crowd("threat=owner", "attack=gradient_inversion", "threat.steps=first:3")
    for view in trained.views():
        whole = [weights.step for weights in view.weights if weights.layer == ""]
        assert whole == [0]
    (late,) = crowd(
        "threat=coordinator", "attack=gradient_inversion", "threat.steps=last:3"
    ).views()
    assert "" not in _layers(late)


def test_outsiders_hold_no_weights_of_training(rig: Callable) -> None:
    (view,) = rig("regime=centralized", "threat=released", "attack=loss_threshold").views()
    assert not view.messages
    assert not view.weights
    assert view.own is None


def test_broadcasts_tell_of_a_step_only_with_the_next_one() -> None:
    def _broadcast(step: int) -> Message:
        sent = ("train", "coordinator", "device-0", "stem_weights", "weight", None, torch.zeros(2))
        return Message(step, *sent, rows=torch.arange(3))

    alone = rows_of([_broadcast(0), _broadcast(2)], KINDS)
    assert not len(alone), "nothing is known to have changed between"
    both = rows_of([_broadcast(0), _broadcast(1)], KINDS)
    assert both.tolist() == [[0, 0], [0, 1], [0, 2]]


def test_rows_are_counted_once_whatever_copies_cross() -> None:
    def _sent(step: int, rows: list[int]) -> Message:
        sent = ("train", "a", "b", "activation", "l", None, torch.zeros(len(rows), 2))
        return Message(step, *sent, rows=torch.tensor(rows))

    found = rows_of([_sent(1, [2, 0]), _sent(1, [0, 1]), _sent(0, [5])], ["activation"])
    assert found.tolist() == [[0, 5], [1, 0], [1, 1], [1, 2]]
    assert not len(rows_of([_sent(0, [1])], ["gradient"]))
