"""Many seeds, each repaired and refined; the least volume wins."""

from __future__ import annotations

from collections.abc import Sequence

from privbench.slicenet.problem import Slicing
from privbench.slicenet.slicers.costs import Costs
from privbench.slicenet.slicers.refine import Search
from privbench.slicenet.slicers.repair import fixed, refusal, repair
from privbench.slicenet.slicers.seeds import intervals, orders, whole

_SHORT, _LONG = 1500.0, 20_000.0  # work of a heat and of the final, in vertices put in
_FINALISTS = 2


def best(costs: Costs, seeds: Sequence[Slicing], effort: float, seed: int) -> Slicing:
    """The slicing of least volume that any seed leads to.

    Args:
        costs: the problem in arrays.
        seeds: slicings to start from beside our own; they may break budgets.
        effort: work, 1 = seconds for some hundred vertices.
        seed: of random choices.

    Call ``check_hope`` before: it costs nothing where there is none.

    Raises:
        BudgetError: no seed leads to a slicing within budgets.
    """
    heats = [fresh for fresh in _starts(costs, seeds, seed)]
    ready = [search for search in heats if repair(search, effort * _SHORT)]
    if not ready:
        ready = [search for search in heats if repair(search, effort * _LONG / 4)]
    if not ready:
        raise refusal(min(heats, key=lambda search: search.missing))
    for search in ready:
        search.anneal(effort * _SHORT, 0.1, 0.01)
    ready.sort(key=lambda search: search.account.price)
    for search in ready[:_FINALISTS]:
        search.anneal(effort * _LONG / _FINALISTS, 0.3, 0.01)
    return min(ready, key=lambda search: search.account.price).account.slicing()


def _starts(costs: Costs, seeds: Sequence[Slicing], seed: int) -> list[Search]:
    found: list[Search] = []
    for devices in orders(costs):
        search = Search(costs, seed)
        search.pool = intervals(search, devices)
        search.keep()
        found.append(search)
    for backward in (False, True):
        search = Search(costs, seed)
        pool = whole(costs)
        search.pool = search.fill(pool, sorted(pool, reverse=backward))
        search.keep()
        found.append(search)
    for slicing in seeds:
        search = Search(costs, seed)
        fixed(search, slicing)
        found.append(search)
    return found
