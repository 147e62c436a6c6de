"""Coarser problems: vertices that belong together become one, are placed as one, and part again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from privbench.slicenet.slicers.costs import Costs, Kind, ends_of
from privbench.slicenet.slicers.draft import Draft
from privbench.slicenet.slicers.refine import Search

_PINS = 48  # flows with more ends say little of which belong together
_SHARE = 0.25  # most of the largest budget that a cluster may need


@dataclass(frozen=True, eq=False)
class Coarse:
    """A problem of clusters.

    Args:
        costs: of the clusters, as kinds of one vertex each; kinds of many stay what they are.
        cluster_of: cluster of each finer kind.
    """

    costs: Costs
    cluster_of: tuple[int, ...]


def coarsen(costs: Costs, rng: Random, places: Sequence[int] | None = None) -> Coarse:
    """Joins each kind of one vertex with that which shares most with it, for its size.

    Heavy edges as in Karypis, Aggarwal, Kumar, Shekhar, "Multilevel Hypergraph Partitioning", 1999,
    https://doi.org/10.1109/92.748202.

    Args:
        costs: the finer problem.
        rng: order of visits.
        places: device of each kind; only kinds of one device are joined. None = any.
    """
    ratings = _Ratings(costs)
    cluster = list(range(len(costs.kinds)))
    flops = [kind.flops for kind in costs.kinds]
    memory = [kind.memory for kind in costs.kinds]
    most = (_SHARE * float(costs.compute.max()), _SHARE * float(costs.memory.max()))
    joined = [False] * len(cluster)
    order = [number for number, kind in enumerate(costs.kinds) if len(kind.vertices) == 1]
    rng.shuffle(order)
    for number in order:
        if joined[number]:
            continue
        best, into = 0.0, -1
        for other, weight in ratings.of(number).items():
            home = cluster[other]
            if home == number or (places is not None and places[other] != places[number]):
                continue
            if flops[home] + flops[number] > most[0] or memory[home] + memory[number] > most[1]:
                continue
            worth = weight / (memory[home] / most[1] + flops[home] / most[0] + 1e-9)
            if worth > best:
                best, into = worth, home
        if into >= 0:
            cluster[number] = into
            flops[into] += flops[number]
            memory[into] += memory[number]
            joined[number] = joined[into] = True
    names = {home: place for place, home in enumerate(sorted(set(cluster)))}
    cluster_of = tuple(names[home] for home in cluster)
    return Coarse(_merged(costs, cluster_of, len(names)), cluster_of)


class _Ratings:
    """How much kinds have to do with each other."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._made: list[list[tuple[int, float]]] = [[] for _ in costs.numbers]
        for number, kind in enumerate(costs.kinds):
            if len(kind.vertices) == 1:
                for flow, count in zip(kind.makes.tolist(), kind.numbers.tolist(), strict=True):
                    self._made[flow].append((number, count))
        self._needed = [
            [each for each in targets if len(costs.kinds[each].vertices) == 1]
            for targets in costs.targets
        ]

    def of(self, number: int) -> dict[int, float]:
        """By kind: numbers a sample that are likely to be saved by hosting both."""
        kind, found = self._costs.kinds[number], dict[int, float]()
        for flow in kind.needs.tolist():
            targets, made = self._needed[flow], self._made[flow]
            if len(targets) + len(made) > _PINS:
                continue
            whole = float(self._costs.numbers[flow]) / len(targets)
            for each in targets:
                found[each] = found.get(each, 0.0) + whole
            for each, count in made:
                found[each] = found.get(each, 0.0) + count / len(targets)
        for flow, count in zip(kind.makes.tolist(), kind.numbers.tolist(), strict=True):
            targets = self._needed[flow]
            if len(targets) + len(self._made[flow]) <= _PINS:
                for each in targets:
                    found[each] = found.get(each, 0.0) + count / len(targets)
        found.pop(number, None)
        return found


def _merged(costs: Costs, cluster_of: Sequence[int], clusters: int) -> Costs:
    members: list[list[Kind]] = [[] for _ in range(clusters)]
    for number, home in enumerate(cluster_of):
        members[home].append(costs.kinds[number])
    kinds = []
    for group in members:
        if len(group) == 1:
            kinds.append(group[0])
            continue
        makes: dict[int, float] = {}
        for kind in group:
            for flow, count in zip(kind.makes.tolist(), kind.numbers.tolist(), strict=True):
                makes[flow] = makes.get(flow, 0.0) + count
        needs = sorted({flow for kind in group for flow in kind.needs.tolist()})
        known = set(needs)
        kinds.append(
            Kind(
                group[0].vertices[:1],
                sum(kind.flops for kind in group),
                sum(kind.memory for kind in group),
                np.array(needs, dtype=np.int64),
                np.array(list(makes), dtype=np.int64),
                np.array(list(makes.values()), dtype=np.float64),
                np.array([flow in known for flow in makes], dtype=bool),
                sum(kind.to_owners for kind in group),
            )
        )
    targets, sources = ends_of(tuple(kinds), len(costs.numbers))
    return replace(costs, kinds=tuple(kinds), targets=targets, sources=sources)


def kinds_fit(costs: Costs) -> bool:
    """Are there so few kinds a device that clusters would not help?"""
    return len(costs.kinds) <= max(30, 4 * costs.devices)


def levels_of(costs: Costs, rng: Random, places: Sequence[int] | None = None) -> list[Coarse]:
    """Ever coarser problems, until few clusters a device are left."""
    found: list[Coarse] = []
    while not kinds_fit(costs):
        level = coarsen(costs, rng, places)
        if len(level.costs.kinds) > 0.9 * len(costs.kinds):
            break
        if places is not None:
            homes = dict(zip(level.cluster_of, places, strict=True))
            places = [homes[number] for number in range(len(level.costs.kinds))]
        found.append(level)
        costs = level.costs
    return found


def parted(coarse: Draft, cluster_of: Sequence[int], fine: Draft) -> None:
    """Gives every kind of a finer, empty draft the place of its cluster."""
    for kind, cluster in enumerate(cluster_of):
        for device, count in coarse.account.places[cluster].items():
            fine.put(kind, device, count)
        if cluster in coarse.pool:
            fine.pool[kind] = coarse.pool[cluster]
    fine.keep()


def multilevel(costs: Costs, seed: int, work: float, start: Draft | None = None) -> Search:
    """A search that placed clusters first, then parted them and went on level by level.

    Args:
        costs: the problem.
        seed: of random choices.
        work: insertions to try, all levels together.
        start: where everything is; clusters form within devices. None = nowhere yet.
    """
    rng = Random(seed)
    places = None
    if start is not None:
        places = [next(iter(each), -1) for each in start.account.places]
    levels = levels_of(costs, rng, places)
    problems = [costs, *(level.costs for level in levels)]
    search = Search(problems[-1], seed)
    if start is None:
        pool = {number: len(kind.vertices) for number, kind in enumerate(problems[-1].kinds)}
        search.pool = search.fill(pool, sorted(pool))
    else:
        _gather(start, levels, search)
    search.keep()
    for depth in range(len(levels), -1, -1):
        if depth < len(levels):
            finer = Search(problems[depth], seed)
            parted(search, levels[depth].cluster_of, finer)
            search = finer
        if search.pool:
            search.pool = search.fill(search.pool, sorted(search.pool))
            search.keep()
        hot = 0.3 if start is None else 0.1
        search.anneal(work / len(problems), hot, 0.02)
    return search


def _gather(fine: Draft, levels: Sequence[Coarse], coarse: Draft) -> None:
    """Gives every cluster the place of its members."""
    home = list(range(len(fine.costs.kinds)))
    for level in levels:
        home = [level.cluster_of[each] for each in home]
    done: set[int] = set()
    for kind, cluster in enumerate(home):
        if cluster not in done:
            done.add(cluster)
            for device, count in fine.account.places[kind].items():
                coarse.put(cluster, device, count)
