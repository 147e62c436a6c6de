"""The hypergraph slicer: budgets kept, as good as its seeds, the same every time, refusals in words."""

from dataclasses import replace

import pytest
from instances import instance

from privbench.errors import BudgetError, UsageError
from privbench.slicenet.problem import gaps_of, volume
from privbench.slicenet.slicers import hypergraph, kahypar
from privbench.slicenet.slicers.hypergraph import Hypergraph, baselines
from privbench.slicenet.slicers.layerwise import Layerwise

QUICK = Hypergraph(effort=0.05, kahypar=False)


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(s, marks=pytest.mark.slow) for s in range(5, 20))]
)
def test_it_keeps_budgets_of_random_instances_and_beats_what_was_planted(seed):
    found = instance(seed)
    slicing = QUICK.slice(found.problem)
    assert not gaps_of(found.problem, slicing)
    assert volume(found.problem, slicing) <= volume(found.problem, found.planted)
    try:
        other = Layerwise().slice(found.problem)
    except BudgetError:
        return
    assert volume(found.problem, slicing) <= volume(found.problem, other)


@pytest.mark.parametrize("seed", range(6))
def test_what_cannot_be_is_refused_with_the_constraint_and_the_device(seed):
    found = instance(seed, feasible=False)
    with pytest.raises(BudgetError, match=r"device-\d+ needs .* budget is .* too little.*crowd\."):
        QUICK.slice(found.problem)


def test_equal_problems_give_equal_slicings():
    first, second = (Hypergraph(effort=0.05).slice(instance(4).problem) for _ in range(2))
    assert first == second


def test_a_crowd_without_hosts_is_refused():
    problem = instance(1).problem
    idle = tuple(replace(device, hosts=False) for device in problem.devices)
    with pytest.raises(BudgetError, match="hosts=true"):
        QUICK.slice(replace(problem, devices=idle))


def test_without_the_partitioner_it_says_so_and_goes_on(monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "mtkahypar", None)
    monkeypatch.setattr(kahypar, "library", kahypar.library.__wrapped__)
    found = instance(2)
    slicing = Hypergraph(effort=0.02).slice(found.problem)
    assert not gaps_of(found.problem, slicing)
    assert "mtkahypar is not installed" in caplog.text


def test_an_effort_of_nothing_is_refused():
    with pytest.raises(UsageError, match=r"slicer\.effort=0"):
        Hypergraph(effort=0)


@pytest.mark.parametrize("number", [5, 12, pytest.param(68, marks=pytest.mark.slow)])
def test_neither_layerwise_nor_metis_ever_sends_less(number):
    problem = instance(number, crowd="unequal", small=number < 60).problem
    mine = volume(problem, Hypergraph(effort=0.05).slice(problem))
    others = baselines(problem)
    assert len(others) == 2
    for other in others:
        assert mine <= volume(problem, other)


def test_the_search_starts_from_what_simpler_slicers_find(monkeypatch):
    problem = instance(5, crowd="unequal").problem
    handed = []
    monkeypatch.setattr(hypergraph, "best", lambda _, seeds, *__: handed.extend(seeds) or seeds[0])
    Hypergraph(kahypar=False).slice(problem)
    assert handed == baselines(problem) and len(handed) == 2
