"""Seats that act while the model is trained: what they may change, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from privbench.compose.plans import threats
from privbench.contract import child_rng
from privbench.data.splits import Opened, open_population
from privbench.errors import PluginError
from privbench.experiment import cut, run_row
from privbench.plan import Plan
from privbench.seating import seats_of
from privbench.store import Store
from privbench.targets import Opening, target_of

SPLIT = ("regime=split", "threat=split_server_active", "attack=fsha")
COORDINATOR = (
    *("regime=slicenet", "crowd.devices=4", "regime.granularity=4", "regime.epochs=1"),
    *("regime.batch=90", "threat=coordinator_active", "attack=fsha"),
)
HOST = (*COORDINATOR[:5], "threat=host_active", "attack=fsha")


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "plugins"))
    return import_module("actors")


def _trained(plan: Plan) -> tuple[Opened, Opening]:
    opened = open_population(plan.data, plan.seed)
    return opened, target_of(plan, opened, Store(plan.out))


def test_a_seat_changes_what_it_sends(plan: Callable[..., Plan], actors: ModuleType) -> None:
    quiet = replace(plan(*SPLIT), attack=actors.Meddling(by=0.0))
    loud = replace(plan(*SPLIT), attack=actors.Meddling(by=0.5))
    _, one = _trained(quiet)
    _, other = _trained(loud)
    _, plain = _trained(plan("regime=split", "threat=split_server", "attack=ridge_decoder"))
    name = "linear0.weight"
    first, changed, same = (target.trained.net.weights or {} for target in (one, other, plain))
    assert torch.equal(first[name], same[name])
    assert not torch.allclose(first[name], changed[name])
    sent = [m for m in other.transcript.messages if m.kind == "gradient" and m.step == 0]
    true = [m for m in one.transcript.messages if m.kind == "gradient" and m.step == 0]
    assert torch.allclose(sent[0].payload, true[0].payload + 0.5)


def test_what_others_send_is_not_its_own(plan: Callable[..., Plan], actors: ModuleType) -> None:
    for words, who in ((SPLIT, "that client sent"), (HOST, "device-")):
        with pytest.raises(PluginError, match=f"changed .*{who}"):
            _trained(replace(plan(*words), attack=actors.Meddling(kind="activation", foreign=True)))


def test_a_payload_keeps_its_shape(plan: Callable[..., Plan], actors: ModuleType) -> None:
    with pytest.raises(PluginError, match="expected finite numbers of shape"):
        _trained(replace(plan(*SPLIT), attack=actors.Meddling(by=float("nan"))))


def test_owners_use_the_stem_that_they_receive(
    plan: Callable[..., Plan], actors: ModuleType
) -> None:
    meddling = replace(plan(*COORDINATOR), attack=actors.Meddling(kind="stem_weights", by=0.1))
    opened, target = _trained(meddling)
    recipe = target.trained.recipe
    start = recipe.net.initialised(child_rng(torch.Generator().manual_seed(0), "init"))
    module = start.module().train()
    stem = [
        n for layer in target.topology.layers if layer.place == "stem" for n in layer.parameters
    ]
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(0.1 * (name in stem))
    samples = opened.population.train
    F.cross_entropy(module(samples.x), samples.y).backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    rate = recipe.optimizer.kwargs["lr"]
    for name, found in (target.trained.net.weights or {}).items():
        expected = (start.weights or {})[name] - rate * gradients[name]
        assert torch.allclose(found, expected, atol=1e-5), name


def test_an_owner_changes_its_own_rows_alone(plan: Callable[..., Plan], actors: ModuleType) -> None:
    words = (*COORDINATOR[:5], "threat=owner_active", "attack=fsha")
    stems = []
    for by in (0.0, 0.5):
        _, target = _trained(
            replace(plan(*words), attack=actors.Meddling(kind="activation", by=by))
        )
        stems.append(next(m for m in target.transcript.messages if m.kind == "activation"))
    moved = (stems[1].payload - stems[0].payload).flatten(1)
    mine = target.transcript.owners[0] == 0
    assert torch.allclose(moved[mine], torch.tensor(0.5))
    assert not bool(moved[~mine].any())


def test_notes_come_back_in_its_view(plan: Callable[..., Plan], actors: ModuleType) -> None:
    for words in (SPLIT, HOST):
        acting = replace(plan(*words), attack=actors.Meddling())
        opened, target = _trained(acting)
        seats, _ = seats_of(acting, target.topology, opened)
        (view,) = cut(acting, opened, target, seats)
        assert bool(view.notes["own"].all())
        assert view.notes["knows"].tolist() == [1.0, 1.0, 0.0]  # no released model yet
        _, again = _trained(acting)
        assert torch.equal(again.notes["draws"], view.notes["draws"])


def test_one_seat_acts_and_the_others_are_counted(
    plan: Callable[..., Plan], actors: ModuleType
) -> None:
    acting = replace(plan(*HOST), attack=actors.Meddling())
    opened, target = _trained(acting)
    (first,), (rest,) = seats_of(acting, target.topology, opened)
    assert (
        rest.reason
        == f"not attacked: one seat acts, here {first.name}; threat.seat=... chooses another"
    )
    hosts = target.topology.hosts()
    assert rest.seats == len(hosts) - 1
    chosen = replace(acting, threat=replace(acting.threat, seat=hosts[-1]))
    assert [seat.name for seat in seats_of(chosen, target.topology, opened)[0]] == [hosts[-1]]
    assert chosen.target_print(opened.digest) != acting.target_print(opened.digest)


def test_a_target_is_that_of_its_actor(plan: Callable[..., Plan], actors: ModuleType) -> None:
    prints = {
        replace(plan(*SPLIT), attack=actors.Meddling(by=by)).target_print("") for by in (0.1, 0.2)
    }
    listening = plan("regime=split", "threat=split_server", "attack=ridge_decoder")
    prints.add(listening.target_print(""))
    assert len(prints) == 3
    beside = replace(listening, threat=plan(*SPLIT).threat)
    assert beside.target_print("") == listening.target_print(""), "nobody acts"


def test_what_cannot_act_trains_nothing(plan: Callable[..., Plan], tmp_path: Path) -> None:
    hidden = replace(
        plan("regime=slicenet", "crowd.devices=4", "threat=coordinator_active", "attack=imprint"),
        out=tmp_path,
    )
    report = run_row(hidden)
    assert report.status == "not_applicable"
    assert "type regime.stem=2" in report.reason
    assert not list(tmp_path.glob("targets/[!.]*"))


def test_replicas_do_without_actors(plan: Callable[..., Plan], actors: ModuleType) -> None:
    acting = replace(plan(*HOST, "regime.replicas=2"), attack=actors.Meddling())
    report = run_row(acting)
    assert report.status == "failed"
    assert "without active attacks" in report.reason


def test_an_actor_is_named_by_its_attack(actors: ModuleType) -> None:
    with pytest.raises(PluginError, match=r"expected its class as Unnamed\.actor"):
        actors.Unnamed()


def test_listeners_are_told_which_threat_acts(plan: Callable[..., Plan], tmp_path: Path) -> None:
    listening = replace(plan("regime=split", "threat=split_server", "attack=fsha"), out=tmp_path)
    assert "split_server_active" in threats()
    report = run_row(listening)
    assert report.reason == (
        "attack=fsha is active, threat=split_server only listens; choose a threat that tampers; here it "
        "can be run with threat=split_server_active"
    )


def test_listening_attacks_are_sent_to_listening_threats(plan: Callable[..., Plan]) -> None:
    passive = plan("regime=split", "threat=split_server", "attack=ridge_decoder")
    opened, target = _trained(passive)
    _, (refusal,) = seats_of(passive, target.topology, opened)
    assert "threat.pairs=query" in refusal.reason
    assert "active" not in refusal.reason
