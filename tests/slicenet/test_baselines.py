"""Slicers that are compared with, the yardstick, and budgets under every slicer that there is."""

import itertools
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from instances import CROWDS, NETWORKS, Instance, drawn, instance
from omegaconf import OmegaConf

from privbench.compose.building import build
from privbench.errors import BudgetError, UsageError
from privbench.slicenet.problem import (
    Problem,
    Slicing,
    check_budgets,
    gap_of,
    gaps_of,
    needs_of,
    volume,
)
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.exact import MixedInteger, solve
from privbench.slicenet.slicers.greedy import Greedy
from privbench.slicenet.slicers.layerwise import Layerwise, intervals
from privbench.slicenet.slicers.loads import Loads
from privbench.slicenet.slicers.metis import Metis, graph_of
from privbench.slicenet.slicers.random import Random
from privbench.slicenet.slicers.simple import repaired

CONF = Path(__file__).parents[2] / "conf" / "slicer"
SLICERS = tuple(sorted(file.stem for file in CONF.glob("*.yaml")))
EVERY = [(kind, crowd) for kind in NETWORKS for crowd in CROWDS]


def slicer_of(name: str) -> Slicer:
    """As a user gets it, but in less time where that is a setting."""
    built = build(OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")), "slicer")
    assert isinstance(built, Slicer)
    hurried = {"time_limit": 20.0, "effort": 0.1}
    return replace(built, **{key: value for key, value in hurried.items() if hasattr(built, key)})


@cache
def tiny() -> tuple[Instance, ...]:
    """Instances of every network that have at most some thousand slicings."""
    found = []
    for seed, (kind, crowd) in enumerate(EVERY * 3):
        rng = np.random.default_rng(seed)
        each = drawn(rng, kind, crowd, 4, int(rng.integers(2, 4)))
        if len(each.problem.devices) ** len(each.problem.vertices) <= 1200:
            found.append(replace(each, name=f"{each.name} seed {seed}"))
    return tuple(found)


def slow_greedy(problem: Problem) -> Slicing:
    """What ``Greedy`` does, every load computed from nothing each time."""
    hosted = [[] for _ in problem.devices]
    hosts = [0] * len(problem.vertices)
    for number in sorted(range(len(hosts)), key=lambda each: -problem.vertices[each].flops):
        loads = []
        for device, profile in enumerate(problem.devices):
            after = [*hosted[device], number]
            if profile.hosts and gap_of(problem, device, after) is None:
                share = max(
                    problem.flops(device, after) / profile.compute,
                    problem.memory(device, after) / profile.memory,
                )
                loads.append((share, len(after), device))
        if not loads:
            raise BudgetError("nobody")
        hosts[number] = min(loads)[2]
        hosted[hosts[number]].append(number)
    return Slicing(tuple(hosts))


def slow_optimum(problem: Problem) -> Fraction | None:
    """The least volume of all slicings that keep the budgets."""
    able = [number for number, device in enumerate(problem.devices) if device.hosts]
    every = map(Slicing, itertools.product(able, repeat=len(problem.vertices)))
    kept = (each for each in every if not gaps_of(problem, each))
    return min((volume(problem, each) for each in kept), default=None)


def test_instances_are_what_they_say():
    for seed in range(len(EVERY)):
        kind, crowd = EVERY[seed]
        found = instance(seed, kind=kind, crowd=crowd)
        check_budgets(found.problem, found.planted)
        assert found.problem.vertices == instance(seed, kind=kind, crowd=crowd).problem.vertices
        assert sum(found.problem.shares) == 1
        assert instance(seed, kind=kind, crowd=crowd, feasible=False).planted is None
    large = instance(0, small=False)
    assert 150 <= len(large.problem.vertices) <= 800 and 4 <= len(large.problem.devices) <= 64


@pytest.mark.parametrize("kind", NETWORKS)
def test_running_totals_are_the_problem_s_own(kind):
    problem = instance(3, kind=kind, crowd="idle").problem
    rng = np.random.default_rng(0)
    hosts = rng.integers(0, len(problem.devices), len(problem.vertices)).tolist()
    loads = Loads(problem, hosts)
    for number in rng.integers(0, len(hosts), 40).tolist():
        loads.take(number, hosts[number])
        after = loads.after(number)
        hosts[number] = int(rng.integers(0, len(problem.devices)))
        loads.put(number, hosts[number])
        now, asked = loads.now(), needs_of(problem, Slicing(tuple(hosts)))
        np.testing.assert_array_equal(now.memory, asked.memory)
        np.testing.assert_allclose(now.flops, asked.flops, rtol=1e-12)
        assert after.memory[hosts[number]] == now.memory[hosts[number]]
    assert loads.counts.tolist() == np.bincount(hosts, minlength=len(problem.devices)).tolist()


@pytest.mark.parametrize("seed", range(40))
def test_greedy_is_its_slow_twin(seed):
    kind, crowd = EVERY[seed]
    problem = instance(seed, kind=kind, crowd=crowd).problem
    try:
        expected = slow_greedy(problem)
    except BudgetError:
        with pytest.raises(BudgetError, match=r"no device can take block \d+ of \d+"):
            Greedy().slice(problem)
    else:
        assert Greedy().slice(problem) == expected


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_exact_optimum_is_that_of_all_slicings(kind):
    mine = [each for each in tiny() if each.name.startswith(kind)]
    assert mine
    for each in mine[:4]:
        expected = slow_optimum(each.problem)
        found = solve(each.problem, 60.0)
        assert found.proven and volume(each.problem, found.slicing) == expected, each.name
        assert found.volume == float(expected)
        assert found.bound == pytest.approx(found.volume, rel=1e-6, abs=1e-3)
        check_budgets(each.problem, found.slicing)


@pytest.mark.parametrize("seed", range(6))
def test_exact_says_what_binds(seed):
    found = instance(seed, feasible=False).problem
    free = replace(found, devices=tuple(replace(each, compute=1e30) for each in found.devices))
    with pytest.raises(BudgetError) as refused:
        MixedInteger().slice(found)
    try:
        Greedy().slice(free)
    except BudgetError:
        assert "memory binds (proven)" in str(refused.value)
    else:
        assert "compute binds (proven)" in str(refused.value)


def test_exact_without_time_or_within_too_little():
    with pytest.raises(UsageError, match="time_limit=0"):
        MixedInteger(time_limit=0)
    with pytest.raises(BudgetError, match=r"slicer\.time_limit"):
        MixedInteger(time_limit=1e-6).slice(instance(4, kind="random").problem)


def test_layerwise_cuts_the_forward_order_into_intervals():
    problem = instance(1, kind="conv-output", crowd="equal").problem
    slicing = Layerwise().slice(problem)
    borders = sum(one != two for one, two in itertools.pairwise(slicing.hosts))
    assert borders == len(set(slicing.hosts)) - 1
    assert slicing == intervals(problem) and list(slicing.hosts) == sorted(slicing.hosts)
    for device in sorted(set(slicing.hosts))[:-1]:
        mine = slicing.hosted(device)
        assert gap_of(problem, device, [*mine, mine[-1] + 1])


def test_random_follows_its_seed():
    problem = instance(2, kind="mlp-output", crowd="equal").problem
    drawn_by = [Random(seed=seed).slice(problem) for seed in (0, 0, 1)]
    assert drawn_by[0] == drawn_by[1] != drawn_by[2]
    with pytest.raises(UsageError, match="tries=0"):
        Random(tries=0)


def test_the_simplest_repair_leaves_what_is_whole_and_mends_what_is_not():
    found = instance(5, kind="mlp-output", crowd="tight-compute")
    assert repaired(found.problem, found.planted) == found.planted
    idle = instance(0, kind="mlp-output", crowd="idle").problem
    lame = tuple(replace(each, hosts=number > 0) for number, each in enumerate(idle.devices))
    wide = tuple(replace(each, compute=1e30, memory=1e30) for each in lame)
    broken = Slicing((0,) * len(idle.vertices))
    mended = repaired(replace(idle, devices=wide), broken)
    assert set(mended.hosts) == set(range(1, len(wide)))
    starved = instance(5, feasible=False).problem
    with pytest.raises(BudgetError, match="too much for another: device-"):
        repaired(starved, Slicing((0,) * len(starved.vertices)))


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_graph_of_metis_counts_once_a_consumer(kind):
    problem = instance(7, kind=kind).problem
    expected = Counter()
    for flow in problem.flows:
        for source, count in zip(flow.sources, flow.numbers, strict=False):
            for target in flow.targets:
                expected[min(source, target), max(source, target)] += count
    graph = graph_of(problem, 10**6).tocoo()
    found = {
        (int(one), int(two)): int(weight)
        for one, two, weight in zip(*graph.coords, graph.data, strict=True)
        if one < two
    }
    assert found == {pair: count for pair, count in expected.items() if pair[0] != pair[1]}
    thin = graph_of(problem, graph.nnz // 4)
    assert thin.nnz < graph.nnz or kind in ("residual", "random")
    assert thin.sum() == pytest.approx(graph.sum(), rel=0.05)


def test_metis_answers_a_platform_without_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(UsageError, match=r"privbench\[slicing\]"):
        Metis().slice(instance(0).problem)


@pytest.mark.parametrize("name", SLICERS)
def test_every_slicer_keeps_budgets_or_refuses(name):
    slow = name in ("exact", "hypergraph", "leakage_bounded")
    seeds = [0, 17] if slow else [*range(1, 40, 5)]  # quickly proven ones
    held = [hold(name, seed) for seed in seeds]
    assert any(held) or name == "leakage_bounded"
    for seed in range(1 if slow else 5):
        refuses(name, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SLICERS)
def test_every_slicer_keeps_budgets_on_a_thousand_instances(name):
    each = -(-1000 // len(SLICERS))
    whole = [
        hold(name, seed, small=name == "exact" or seed % 4 > 0) for seed in range(each * 4 // 5)
    ]
    assert sum(whole) > len(whole) / 2 or name == "leakage_bounded"
    for seed in range(each - len(whole)):
        refuses(name, seed, small=name == "exact" or seed % 4 > 0)


def hold(name: str, seed: int, small: bool = True) -> bool:
    """Slice an instance that can be sliced; was it?"""
    kind, crowd = EVERY[seed % len(EVERY)]
    problem = instance(seed, kind=kind, crowd=crowd, small=small).problem
    try:
        slicing = slicer_of(name).slice(problem)
    except BudgetError as refused:
        words = str(refused)
        assert "bound" in words if name == "leakage_bounded" else "device-" in words
        assert name not in ("exact", "hypergraph"), f"{kind} {crowd} seed {seed}: {refused}"
        return False
    check_budgets(problem, slicing)
    return True


def refuses(name: str, seed: int, small: bool = True) -> None:
    """Slice an instance that cannot be sliced."""
    problem = instance(seed, small=small, feasible=False).problem
    words = "compute|memory|bound" if name == "leakage_bounded" else "compute|memory"
    with pytest.raises(BudgetError, match=words):
        slicer_of(name).slice(problem)
