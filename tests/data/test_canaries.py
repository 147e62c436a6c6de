"""Canaries: independent coins, records of their kind, and a truth that fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from privbench.contract import Samples
from privbench.data.arrays import members
from privbench.data.canaries import CANARIES, plant
from privbench.data.digits import Digits
from privbench.data.splits import open_population
from privbench.errors import DataError

DIGITS = Digits(canaries=200)


@pytest.mark.parametrize("kind", CANARIES)
def test_the_truth_says_where_each_canary_is(kind: str) -> None:
    opened = open_population(replace(DIGITS, canary=kind), 3)
    plain, train = open_population(Digits(), 3), opened.population.train
    places = opened.truth.places
    inside = places >= 0
    assert len(opened.candidates) == 200
    assert torch.equal(opened.candidates.x[inside], train.x[places[inside]])
    assert torch.equal(opened.candidates.y[inside], train.y[places[inside]])
    assert len(train) == 600 + int(inside.sum()) and len(places[inside].unique()) == inside.sum()
    assert torch.equal(opened.population.held_out.x, plain.population.held_out.x[200:])
    assert torch.equal(opened.evaluator.x, plain.evaluator.x)
    there = {row.numpy().tobytes() for row in train.x}
    assert not there & {row.numpy().tobytes() for row in opened.candidates.x[~inside]}
    assert opened.digest == plain.digest and opened.sizes["canaries"] == 200
    assert any(f"200 {kind} canaries" in notice for notice in opened.notices)


def test_coins_are_fair_independent_and_of_the_seed() -> None:
    bits = torch.stack([open_population(DIGITS, seed).truth.member for seed in range(20)])
    assert abs(int(bits.sum()) - 2000) < 4 * 4000**0.5 / 2
    counts = bits.sum(dim=1)
    assert len(counts.unique()) > 3  # not a fixed number of them
    assert torch.equal(bits[3], open_population(DIGITS, 3).truth.member)


def test_kinds_are_what_they_say() -> None:
    pool = open_population(Digits(), 0).population.held_out
    rng = torch.Generator().manual_seed(0)
    made = {kind: plant(pool, 100, kind, 10, rng).records for kind in CANARIES}
    assert torch.equal(made["natural"].x, pool.x[:100])
    assert torch.equal(made["natural"].y, pool.y[:100])
    assert torch.equal(made["mislabelled"].x, pool.x[:100])
    assert not (made["mislabelled"].y == pool.y[:100]).any()
    assert set(made["mislabelled"].y.tolist()) == set(range(10))
    blank = made["blank"].x.flatten(1)
    assert (blank == blank[:, :1]).all() and len(blank[:, 0].unique()) == 100
    strange = made["ood"].x.flatten(1)
    torch.testing.assert_close(strange.sort().values, pool.x[:100].flatten(1).sort().values)
    assert all(0 <= float(s.x.min()) <= float(s.x.max()) <= 1 for s in made.values())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Digits(canaries=599), "10 to 598"),
        (Digits(canaries=3), "10 to 598"),
        (Digits(canaries=20, canary="purple"), "expected natural"),
    ],
)
def test_what_cannot_be_planted_says_so(source: Digits, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_population(source, 0)


def test_data_that_say_who_trained_have_no_coins() -> None:
    pool: Samples = Digits().load().samples
    told = members((pool.x[:50], pool.y[:50]), (pool.x[50:100], pool.y[50:100]))
    with pytest.raises(DataError, match=r"data\.split=thirds"):
        open_population(replace(told, canaries=20), 0)
