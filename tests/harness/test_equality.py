"""A released model that equals another regime's is scored once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from privbench import equality
from privbench.equality import as_reference, largest_difference
from privbench.experiment import carry_out
from privbench.plan import Plan
from privbench.report.report import Report
from privbench.store import Store
from privbench.threats.crowd import Host

RELEASED = ("regime=slicenet", "crowd.devices=4", "regime.granularity=4", "threat=released")


def _never(plan: Plan) -> Report:
    raise AssertionError("nobody asked for the reference")


@pytest.fixture
def trained(rig: Callable) -> Any:
    return rig(*RELEASED, "attack=loss_threshold")


def _asked(trained: Any, plan: Plan, carry_out: Callable[[Plan], Report]) -> Report | None:
    return as_reference(plan, trained.target, trained.opened, Store(plan.out), carry_out)


def test_an_equal_model_has_the_scores_of_its_reference(trained: Any) -> None:
    report = carry_out(trained.plan)
    twin = trained.plan.regime.equivalent()
    names = replace(trained.plan.names, regime=twin.name)
    reference = carry_out(replace(trained.plan, regime=twin, names=names))
    assert report.status == "same_as"
    assert report.reason.startswith("equal to centralized (max difference ")
    assert report.scores == reference.scores
    assert report.scores
    assert report.run.guess_hash == reference.run.guess_hash
    assert report.names == trained.plan.names
    assert report.run.fingerprint == trained.plan.row_print(trained.opened.digest)
    assert report.target.bytes_per_sample != reference.target.bytes_per_sample
    assert set(report.table()["verdict"]) == {"as centralized"}


def test_a_larger_difference_makes_a_row_of_its_own(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equality, "largest_difference", lambda *_: 1.01e-3)
    assert _asked(trained, trained.plan, _never) is None
    monkeypatch.setattr(equality, "largest_difference", lambda *_: 0.99e-3)
    shared = _asked(trained, trained.plan, lambda plan: Report(plan.names))
    assert shared is not None
    assert shared.reason == "equal to centralized (max difference 9.9e-04)"


def test_messages_that_a_defense_changes_are_never_equal(trained: Any, strangers: Any) -> None:
    assert _asked(trained, replace(trained.plan, defenses=(strangers.Idle(),)), _never) is None


def test_who_sees_traffic_is_never_compared(trained: Any) -> None:
    assert _asked(trained, replace(trained.plan, threat=Host()), _never) is None


def test_a_regime_without_an_equal_is_itself(rig: Callable) -> None:
    one = rig("regime=centralized", "threat=released", "attack=loss_threshold")
    assert as_reference(one.plan, one.target, one.opened, Store(one.plan.out), _never) is None


def test_every_parameter_and_output_counts(trained: Any) -> None:
    net = trained.target.trained.net
    assert largest_difference(net, net, trained.opened) == 0.0
    for name in net.weights:
        other = {key: tensor.clone() for key, tensor in net.weights.items()}
        other[name].view(-1)[0] += 0.25
        found = largest_difference(net, replace(net, weights=other), trained.opened)
        assert found >= 0.25 - 1e-6
    scaled = {k: v + 1e-4 * torch.ones_like(v) for k, v in net.weights.items()}
    apart = largest_difference(net, replace(net, weights=scaled), trained.opened)
    assert apart > 1.1e-4, "outputs differ by more than any parameter does"
    assert largest_difference(net, replace(net, weights={}), trained.opened) == float("inf")
