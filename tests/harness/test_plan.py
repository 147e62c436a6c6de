"""Fingerprints: what makes another target, another row, and what makes neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module, reload
from pathlib import Path

import pytest
import torch

from attacks.membership.loss_threshold import LossThreshold
from defenses.gaussian_noise import GaussianNoise
from privbench.contract import Budget, Net, Spec
from privbench.data.arrays import Arrays
from privbench.plan import Plan, canonical
from privbench.regimes.centralized import Centralized
from privbench.store import fingerprint
from privbench.threats.active import HostActive
from privbench.threats.outsider import Api
from privbench.wire.capture import Capture

WORDS = ("regime=slicenet", "threat=host", "attack=ridge_decoder")


@pytest.fixture
def made(plan: Callable[..., Plan]) -> Plan:
    return plan(*WORDS)


def _another_stem(plan: Plan) -> Plan:
    return replace(plan, regime=replace(plan.regime, stem=2))


def _another_crowd(plan: Plan) -> Plan:
    device = replace(plan.regime.crowd.device, compute=1e9)
    return replace(
        plan, regime=replace(plan.regime, crowd=replace(plan.regime.crowd, device=device))
    )


def _another_net(plan: Plan) -> Plan:
    return replace(plan, model=Net(Spec(plan.model.spec.target, {"widths": [64, 8, 10]})))


def _other_weights(plan: Plan) -> Plan:
    return replace(plan, model=plan.model.initialised(torch.Generator().manual_seed(0)))


TRAINING = [
    lambda plan: replace(plan, seed=1),
    lambda plan: replace(plan, threads=2),
    lambda plan: replace(plan, device="cuda"),
    lambda plan: replace(plan, capture=Capture(every=2)),
    lambda plan: replace(plan, regime=replace(plan.regime, lr=0.1)),
    lambda plan: replace(plan, regime=Centralized()),
    lambda plan: replace(plan, data=replace(plan.data, split="halves")),
    lambda plan: replace(plan, private_name="__main__.Net 1"),
    _another_stem,
    _another_crowd,
    _another_net,
    _other_weights,
]
"""Changes that make another target, hence another row."""


@pytest.mark.parametrize("change", TRAINING)
def test_what_trains_otherwise_is_another_target(
    change: Callable[[Plan], Plan], made: Plan
) -> None:
    assert change(made).target_print("data") != made.target_print("data")
    assert change(made).row_print("data") != made.row_print("data")


def test_other_bytes_are_another_target(made: Plan) -> None:
    assert made.target_print("data") != made.target_print("other data")


def test_a_defense_is_part_of_the_target_and_so_is_its_order(made: Plan, strangers) -> None:
    noise = Spec("defenses.gaussian_noise.GaussianNoise", {}).build()
    plans = [
        replace(made, defenses=defenses)
        for defenses in ((), (noise,), (noise, strangers.Idle()), (strangers.Idle(), noise))
    ]
    assert len({plan.target_print("") for plan in plans}) == 4


def test_an_active_attack_is_part_of_the_target(made: Plan, strangers) -> None:
    tampering = replace(made, threat=HostActive())
    passive, active = (
        replace(tampering, attack=kind()) for kind in (strangers.Guesses, strangers.Active)
    )
    assert passive.target_print("") == made.target_print("")
    assert active.target_print("") != made.target_print("")
    assert replace(made, attack=strangers.Active()).target_print("") == made.target_print("")


SCORING = [
    lambda plan: replace(plan, attack=LossThreshold()),
    lambda plan: replace(plan, threat=replace(plan.threat, steps="all")),
    lambda plan: replace(plan, threat=replace(plan.threat, budget=Budget(shadow_models=4))),
    lambda plan: replace(plan, threat=Api()),
    lambda plan: replace(plan, victims=7),
    lambda plan: replace(plan, encrypted=True),
    lambda plan: replace(plan, seal="process"),
    lambda plan: replace(plan, names=replace(plan.names, row="another row")),
]
"""Changes of the attack alone: another row of the same target."""


@pytest.mark.parametrize("change", SCORING)
def test_another_attack_is_another_row_of_one_target(
    change: Callable[[Plan], Plan], made: Plan
) -> None:
    assert change(made).target_print("data") == made.target_print("data")
    assert change(made).row_print("data") != made.row_print("data")


def test_where_it_lies_and_how_it_is_told_changes_nothing(made: Plan, tmp_path: Path) -> None:
    other = replace(made, out=tmp_path, again=True, debug=True, config="another: text")
    assert other.target_print("data") == made.target_print("data")
    assert other.row_print("data") == made.row_print("data")


MODULE = """
from dataclasses import dataclass
from typing import ClassVar
from attacks.membership.loss_threshold import LossThreshold
from privbench.contract import MessageDefense

@dataclass(frozen=True, kw_only=True)
class Mine(MessageDefense):
    kinds: ClassVar[tuple[str, ...]] = ("activation",)
    source: ClassVar[str] = "none: a test"
    def send(self, message, rng):
        return {what}
"""


def test_a_strangers_source_is_part_of_the_fingerprint(
    made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    prints = []
    for what in ("message", "message  # edited"):
        (tmp_path / "somebodys.py").write_text(MODULE.format(what=what))
        module = reload(import_module("somebodys"))
        prints.append(replace(made, defenses=(module.Mine(),)).target_print("data"))
    assert prints[0] != prints[1]


def test_our_own_defenses_are_part_of_the_fingerprint_too(
    made: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(made, defenses=(GaussianNoise(),))
    before = plan.target_print("data")
    monkeypatch.setattr("privbench.plan.digest_of_source", lambda thing: "edited")
    assert plan.target_print("data") != before


def test_a_strangers_attack_is_known_by_its_source(
    made: Plan, monkeypatch: pytest.MonkeyPatch, strangers
) -> None:
    plan = replace(made, attack=strangers.Guesses())
    before = plan.row_print("data")
    assert replace(plan, attack=strangers.Guesses(sign=2.0)).row_print("data") != before
    monkeypatch.setattr("privbench.plan.digest_of_source", lambda thing: "edited")
    assert plan.row_print("data") != before
    assert plan.target_print("data") == made.target_print("data")


def test_the_order_of_settings_does_not_count() -> None:
    one, other = (
        Spec("torch.nn.Linear", {"a": 1, "b": 2}),
        Spec("torch.nn.Linear", {"b": 2, "a": 1}),
    )
    assert fingerprint(canonical(one)) == fingerprint(canonical(other))
    assert fingerprint(canonical(one)) != fingerprint(canonical(Spec("torch.nn.Linear", {"a": 1})))


def test_one_bit_of_one_weight_counts() -> None:
    one = torch.zeros(5)
    other = one.clone()
    other[3] = 2**-149
    assert canonical(one) != canonical(other)
    assert canonical(one) != canonical(one.double())
    assert canonical(one) != canonical(one.reshape(5, 1))


def test_where_the_files_of_a_data_set_lie_makes_no_other_target(made: Plan) -> None:
    here, there = (replace(made, data=Arrays(path=f"{place}/x.npz")) for place in ("a", "b"))
    halves = replace(here, data=Arrays(path="a/x.npz", split="halves"))
    assert here.target_print("bytes") == there.target_print("bytes")
    assert here.target_print("bytes") != here.target_print("other bytes")
    assert here.target_print("bytes") != halves.target_print("bytes")
