"""Many seeds, each repaired and refined; the least volume wins."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from privbench.slicenet.problem import Slicing
from privbench.slicenet.slicers.coarse import kinds_fit, multilevel
from privbench.slicenet.slicers.costs import Costs
from privbench.slicenet.slicers.refine import Search
from privbench.slicenet.slicers.repair import fixed, refusal, repair
from privbench.slicenet.slicers.seeds import intervals, orders, whole

_INTERVALS = 3  # pipeline cuts that are worth refining
_FINALISTS = 2
_RESTARTS = 8  # of hotter searches
_HOT = ((4.0, 0.5), (20.0, 0.5))  # their heat at the start and at the end
_WILD = (0.4, 2.0)  # their noise
_CYCLES = 2  # times that a finalist is coarsened and refined again
_CROWDED = 4000  # kinds; more leave time for few seeds


def best(costs: Costs, seeds: Sequence[Slicing], effort: float, seed: int) -> Slicing:
    """The slicing of least volume that any seed leads to.

    Call ``check_hope`` before: it costs nothing where there is none.

    Args:
        costs: the problem in arrays.
        seeds: slicings to start from beside our own; they may break budgets.
        effort: work, 1 = seconds for some hundred vertices.
        seed: of random choices.

    Raises:
        BudgetError: no seed leads to a slicing within budgets.
    """
    kinds = min(len(costs.kinds), 3 * _CROWDED)
    short, long = effort * (1500 + 4 * kinds), effort * (20_000 + 20 * kinds)
    heats = _starts(costs, seeds, seed, short)
    ready = [search for search in heats if repair(search, short)]
    if not ready:
        ready = [search for search in heats if repair(search, max(long, 5000.0))]
    if not ready:
        raise refusal(min(heats, key=lambda search: search.missing))
    for search in ready:
        search.anneal(short / 2, 0.1, 0.01)
    ready.sort(key=lambda search: search.account.price)
    finals = _again(costs, seed, short, long)
    finals += [_final(search, seed, long / _FINALISTS) for search in ready[:_FINALISTS]]
    return min(finals, key=lambda search: search.account.price).account.slicing()


def _again(costs: Costs, seed: int, short: float, long: float) -> list[Search]:
    """Hotter searches from random fillings: where kinds are few, luck is cheaper than care."""
    found: list[Search] = []
    for turn in range(_RESTARTS if kinds_fit(costs) else 0):
        search = Search(costs, seed + 1 + turn, _WILD)
        pool = whole(costs)
        order = Random(seed + 1 + turn).sample(sorted(pool), len(pool))
        search.pool = search.fill(pool, order)
        search.keep()
        if repair(search, short):
            search.anneal(long / 4, *_HOT[turn % len(_HOT)])
            search.anneal(short / 2, 0.1, 0.01)
            found.append(search)
    return found


def _final(search: Search, seed: int, work: float) -> Search:
    """Betters a slicing by clusters and one by one."""
    if kinds_fit(search.costs):
        search.anneal(work, 0.3, 0.01)
        return search
    for cycle in range(_CYCLES):
        other = multilevel(search.costs, seed + cycle, work / _CYCLES, search)
        if not other.pool and other.account.price < search.account.price:
            search = other
    return search


def _starts(costs: Costs, seeds: Sequence[Slicing], seed: int, work: float) -> list[Search]:
    found: list[Search] = []
    crowded = len(costs.kinds) > _CROWDED
    for devices in orders(costs):
        search = Search(costs, seed)
        search.pool = intervals(search, devices)
        search.keep()
        found.append(search)
        found.sort(key=lambda each: (each.missing, each.account.price))
        del found[1 if crowded else _INTERVALS :]
    for backward in () if crowded else (False, True):
        search = Search(costs, seed)
        pool = whole(costs)
        search.pool = search.fill(pool, sorted(pool, reverse=backward))
        search.keep()
        found.append(search)
    if not kinds_fit(costs):
        found += [multilevel(costs, seed + turn, work) for turn in range(1 if crowded else 2)]
    for slicing in seeds:
        search = Search(costs, seed)
        fixed(search, slicing)
        found.append(search)
    return found
