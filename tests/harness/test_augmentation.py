"""Rows on records that are augmented, from the words to the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from privbench.experiment import carry_out

CROWD = ("regime=slicenet", "crowd.devices=4", "regime.granularity=4", "threat=host")


def test_a_host_finds_the_copies_that_crossed(plan: Callable) -> None:
    words = (*CROWD, "threat.seat=device-0", "attack=activation_match", "augmentation=mirrored")
    report = carry_out(plan(*words))
    assert report.status == "ok"
    area = report.scores[0]
    assert area.metric == "auc" and area.value > 0.95


def test_shadow_models_are_trained_on_copies_one_by_one(plan: Callable) -> None:
    words = ("regime=centralized", "threat=released", "augmentation=moved", "attack=lira")
    report = carry_out(plan(*words, "attack.queries=2", "threat.budget.shadow_models=4"))
    assert report.status == "ok" and report.scores[0].n == 90


def test_a_decoder_of_own_samples_is_fitted_on_the_copies_that_crossed(crowd: Callable) -> None:
    """Behind one hidden layer pairs are own: the inputs of what a host saw of its own rows."""
    rig = crowd("threat=host", "augmentation=mirrored")
    (view,) = replace(rig, seats=rig.seats[-1:]).views()
    records = rig.opened.truth.samples(view.own.rows).x
    flipped = (view.own.samples.x == records.flip(-1)).flatten(1).all(dim=1)
    same = (view.own.samples.x == records).flatten(1).all(dim=1)
    assert bool((flipped | same).all())
    assert float((flipped & ~same).double().mean()) == pytest.approx(0.5, abs=0.2)
