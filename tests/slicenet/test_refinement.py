"""The incremental account and the search against slow obvious twins."""

import random

import pytest
from instances import NETWORKS, instance

from privbench.slicenet.problem import Slicing, gaps_of, needs_of, volume
from privbench.slicenet.slicers.coarse import coarsen, multilevel, parted
from privbench.slicenet.slicers.costs import costs_of
from privbench.slicenet.slicers.refine import Search
from privbench.slicenet.slicers.repair import fixed, repair
from privbench.slicenet.slicers.seeds import whole
from privbench.slicenet.slicers.state import Account


def spent(problem, account):
    """FLOP and bytes of each device, stem and tail included."""
    empty = [problem.flops(device, ()) for device in range(len(problem.devices))]
    held = [problem.memory(device, ()) for device in range(len(problem.devices))]
    return (account.costs.compute - account.compute + empty).tolist(), (
        account.costs.memory - account.memory + held
    ).tolist()


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_account_equals_the_definitions_after_random_moves(kind):
    problem = instance(3, kind=kind).problem
    draws, devices = random.Random(1), len(problem.devices)
    hosts = [draws.randrange(devices) for _ in problem.vertices]
    account = Account(costs_of(problem))
    account.load(hosts)
    for turn in range(120):
        vertex, device = draws.randrange(len(hosts)), draws.randrange(devices)
        account.move(vertex, hosts[vertex], device)
        hosts[vertex] = device
        if turn % 8 == 0:
            slicing = Slicing(tuple(hosts))
            needs = needs_of(problem, slicing)
            assert account.volume == volume(problem, slicing) == volume(problem, account.slicing())
            compute, memory = spent(problem, account)
            assert compute == pytest.approx(needs.flops.tolist(), rel=1e-12)
            assert memory == needs.memory.tolist()


@pytest.mark.parametrize("kind", NETWORKS)
def test_offers_say_what_a_move_would_change(kind):
    problem = instance(5, kind=kind).problem
    costs, draws = costs_of(problem), random.Random(2)
    account = Account(costs)
    account.load([draws.randrange(costs.devices) for _ in problem.vertices])
    for number in range(len(costs.kinds)):
        origin = next(iter(account.places[number]))
        count = account.places[number][origin]
        account.drop(number, origin, count)
        offers = account.offers(number)
        for device in range(costs.devices):
            before = account.price
            account.add(number, device, count)
            assert account.price - before == offers.first[device] + count * offers.each[device]
            assert bool(offers.fit[device] >= count) == (not account.over(device))
            account.drop(number, device, count)
        account.add(number, origin, count)


@pytest.mark.parametrize("seed", range(6))
def test_refinement_keeps_budgets_and_never_worsens(seed):
    found = instance(seed)
    search = Search(costs_of(found.problem), 0)
    fixed(search, found.planted)
    assert not search.pool and search.account.volume == volume(found.problem, found.planted)
    before = search.account.volume
    for heat in (0.0, 0.5):
        search.anneal(300, heat, 0.01)
        slicing = search.account.slicing()
        assert not gaps_of(found.problem, slicing)
        assert volume(found.problem, slicing) == search.account.volume <= before
        before = search.account.volume


@pytest.mark.parametrize("seed", range(8))
def test_repair_makes_any_seed_feasible(seed):
    found = instance(seed)
    able = [number for number, device in enumerate(found.problem.devices) if device.hosts]
    draws = random.Random(seed)
    for hosts in ([able[0]] * 99, [draws.choice(able) for _ in range(99)]):
        search = Search(costs_of(found.problem), 0)
        fixed(search, Slicing(tuple(hosts[: len(found.problem.vertices)])))
        assert repair(search, 5000)
        assert not gaps_of(found.problem, search.account.slicing())


@pytest.mark.parametrize("kind", ["random", "residual", "conv-grid"])
def test_clusters_cost_what_their_parts_cost(kind):
    problem = instance(2, kind=kind, crowd="equal", small=False).problem
    costs = costs_of(problem)
    level = coarsen(costs, random.Random(0))
    assert len(level.costs.kinds) < 0.8 * len(costs.kinds)
    coarse, fine = Search(level.costs, 0), Search(costs, 0)
    pool = whole(level.costs)
    coarse.pool = coarse.fill(pool, sorted(pool))
    parted(coarse, level.cluster_of, fine)
    assert fine.account.price == coarse.account.price
    assert fine.account.memory.tolist() == coarse.account.memory.tolist()
    assert fine.account.compute.tolist() == coarse.account.compute.tolist()


def test_clusters_help_where_single_moves_do_not_reach():
    costs = costs_of(instance(1, kind="random", crowd="equal", small=False).problem)
    single = Search(costs, 0)
    pool = whole(costs)
    single.pool = single.fill(pool, sorted(pool))
    single.keep()
    single.anneal(4000, 0.3, 0.01)
    clusters = multilevel(costs, 0, 4000)
    assert not single.pool and not clusters.pool
    assert clusters.account.price < single.account.price
    again = multilevel(costs, 1, 1000, clusters)
    assert again.account.price <= clusters.account.price
