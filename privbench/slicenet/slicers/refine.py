"""Ruin and recreate: takes related vertices out of a slicing and puts them back better."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp
from random import Random

import numpy as np

from privbench.slicenet.slicers.costs import Costs
from privbench.slicenet.slicers.state import Account

Pool = dict[int, int]
"""How many vertices of which kind no device hosts at the moment."""

_WIDE = 48  # devices looked at for each insertion, where there are more


class Search:
    """A slicing under change; every device keeps its budgets at every moment.

    What no device can take waits in a pool, so an infeasible slicing is one with a pool. One step
    takes related vertices out of a few devices, puts them back one kind at a time, where one more
    costs least, and keeps the result if it is better, or by chance if hardly worse. It covers
    moves, swaps, group moves and emptying devices. After Schrimpf, Schneider, Stamm-Wilbrandt, Dueck, "Record
    Breaking Optimization Results Using the Ruin and Recreate Principle", 2000,
    https://doi.org/10.1006/jcph.1999.6413, with the counters of absence of Christiaens, Vanden
    Berghe, "Slack Induction by String Removals for Vehicle Routing Problems", 2020,
    https://doi.org/10.1287/trsc.2019.0914; differs by what is ruined: devices, flows and
    neighbourhoods of a hypergraph.

    Args:
        costs: the problem in arrays.
        seed: of every random choice.
    """

    def __init__(self, costs: Costs, seed: int) -> None:
        self.costs = costs
        self.account = Account(costs)
        self.pool: Pool = {}
        self.work = 0.0  # vertices put in, in units of about 40 microseconds
        self._rng = Random(seed)
        self._noise = np.random.default_rng(seed)
        self._log: list[tuple[int, int, int]] = []
        self._absent = [1.0] * len(costs.kinds)
        self.sizes = sizes_of(costs)

    def put(self, kind: int, device: int, count: int) -> None:
        """Adds; a negative count drops."""
        if count > 0:
            self.account.add(kind, device, count)
        else:
            self.account.drop(kind, device, -count)
        self._log.append((kind, device, count))

    def undo(self) -> None:
        """Takes back all changes since the last ``keep``."""
        for kind, device, count in reversed(self._log):
            if count > 0:
                self.account.drop(kind, device, count)
            else:
                self.account.add(kind, device, -count)
        self._log.clear()

    def keep(self) -> None:
        """Makes the changes so far lasting."""
        self._log.clear()

    def take(self, pool: Pool, kind: int, device: int, count: int) -> None:
        """From a device into a pool."""
        self.put(kind, device, -count)
        pool[kind] = pool.get(kind, 0) + count

    def relieve(self, devices: Iterable[int], pool: Pool) -> None:
        """Takes from devices over a budget until they keep it."""
        account = self.account
        for device in devices:
            while account.contents[device] and _over(account, device):
                kind, count = self._ballast(device)
                self.take(pool, kind, device, count)

    def _ballast(self, device: int) -> tuple[int, int]:
        """What a device over its budget should give away first: much relief for little volume."""
        account, best = self.account, (float("inf"), -1, 0)
        excess = _excess(account, device)
        for kind, count in list(account.contents[device].items()):
            price = account.price
            account.drop(kind, device, count)
            gone = excess - _excess(account, device)
            worth = (account.price - price) / self.costs.scale
            account.add(kind, device, count)
            rank = worth / max(gone, 1e-9) if worth > 0 else worth * max(gone, 1e-9)
            if gone <= 0:
                rank = 1e30 + worth
            if rank < best[0]:
                best = (rank, kind, count)
        _, kind, count = best
        what = self.costs.kinds[kind]
        over = max(
            (account.compute[device] - self.costs.compute[device]) / what.flops
            if what.flops
            else 0.0,
            (account.memory[device] - self.costs.memory[device]) / what.memory
            if what.memory
            else 0.0,
            1.0,
        )
        return kind, min(count, int(np.ceil(min(over, count))))

    def fill(self, pool: Pool, order: list[int], among: np.ndarray | None, noise: float) -> Pool:
        """Puts kinds of a pool, in this order, where one more costs least; returns the rest."""
        left: Pool = {}
        cols = slice(None) if among is None else among
        width = self.costs.devices if among is None else len(among)
        for kind in order:
            count = pool[kind]
            what = self.costs.kinds[kind]
            rows = len(what.needs) + len(what.makes)
            while count:
                self.work += 1 + rows * (0.2 + width / 4000)
                offer = self.account.offers(kind, cols)
                fit = np.minimum(offer.fit, count)
                with np.errstate(divide="ignore", invalid="ignore"):
                    ask = np.where(fit > 0, offer.first / fit + offer.each, np.inf)
                if noise:
                    ask += noise * self._noise.random(width) * (offer.first / np.maximum(fit, 1))
                pick = int(np.argmin(ask))
                if fit[pick] <= 0:
                    left[kind] = count
                    break
                ties = np.flatnonzero(ask == ask[pick])
                if len(ties) > 1:
                    pick = int(ties[np.argmin(offer.fit[ties])])
                took = int(fit[pick])
                device = pick if among is None else int(among[pick])
                self.put(kind, device, took)
                count -= took
        return left

    def order(self, pool: Pool) -> list[int]:
        """A random one of several sensible orders of insertion."""
        kinds = sorted(pool)
        choice = self._rng.randrange(5)
        if choice == 0:
            return kinds
        if choice == 1:
            return kinds[::-1]
        if choice == 2:
            return sorted(kinds, key=lambda kind: -self.sizes[kind])
        if choice == 3:
            return sorted(kinds, key=lambda kind: -self.sizes[kind] * pool[kind])
        self._rng.shuffle(kinds)
        return kinds

    def ruin(self, pool: Pool) -> list[int]:
        """Takes something out; returns the devices that gave."""
        rng, account = self._rng, self.account
        choice = rng.random()
        kind = rng.randrange(len(self.costs.kinds))
        if choice < 0.35:
            devices = self._near(kind, rng.choice((2, 2, 3, 4)))
            for device in devices:
                lumps = list(account.contents[device].items())
                if len(lumps) > 24:
                    lumps = rng.sample(lumps, 24)
                for each, count in lumps:
                    self.take(pool, each, device, count)
        elif choice < 0.6:
            devices = self._flow_out(pool, kind)
        else:
            devices = self._ball(pool, kind, rng.choice((1, 2, 3, 5, 8, 12)))
        self.relieve(devices, pool)
        return devices

    def _near(self, kind: int, count: int) -> list[int]:
        """Some devices that share flows with a kind."""
        rng, account = self._rng, self.account
        if not account.places[kind]:
            return []
        first = rng.choice(list(account.places[kind]))
        found = {first: None}
        for _ in range(3 * count):
            if len(found) >= count:
                break
            other = rng.choice(list(account.contents[rng.choice(list(found))]))
            kindred = self._neighbour(other)
            if account.places[kindred]:
                found[rng.choice(list(account.places[kindred]))] = None
        return list(found)

    def _neighbour(self, kind: int) -> int:
        """A kind that shares a flow with this one, or itself."""
        rng, what = self._rng, self.costs.kinds[kind]
        flows = [*what.needs.tolist(), *what.makes.tolist()]
        if not flows:
            return rng.randrange(len(self.costs.kinds))
        flow = rng.choice(flows)
        ends = self.costs.targets[flow] if rng.random() < 0.5 else self.costs.sources[flow]
        return rng.choice(ends) if ends else kind

    def _flow_out(self, pool: Pool, kind: int) -> list[int]:
        """All targets of a flow leave some of their devices."""
        rng, account = self._rng, self.account
        needs = self.costs.kinds[kind].needs.tolist()
        if not needs:
            return self._ball(pool, kind, 3)
        flow = rng.choice(needs)
        devices = sorted({d for each in self.costs.targets[flow] for d in account.places[each]})
        devices = rng.sample(devices, min(len(devices), rng.choice((1, 2, 3, 4))))
        for device in devices:
            for each in self.costs.targets[flow]:
                count = account.contents[device].get(each, 0)
                if count:
                    self.take(pool, each, device, count)
        return devices

    def _ball(self, pool: Pool, kind: int, count: int) -> list[int]:
        """Lumps of related kinds, wherever they are."""
        rng, account = self._rng, self.account
        devices: dict[int, None] = {}
        for _ in range(count):
            if account.places[kind]:
                device = rng.choice(list(account.places[kind]))
                held = account.contents[device][kind]
                self.take(pool, kind, device, held if rng.random() < 0.7 else rng.randint(1, held))
                devices[device] = None
            kind = self._neighbour(kind)
        return list(devices)

    def _candidates(self, pool: Pool, ruined: list[int]) -> np.ndarray | None:
        """Devices worth a look: those that gave, some that share flows, some empty ones."""
        costs, account, rng = self.costs, self.account, self._rng
        if costs.devices <= _WIDE:
            return None
        found = set(ruined)
        for kind in sorted(pool):
            what = costs.kinds[kind]
            for flow in (*what.needs.tolist(), *what.makes.tolist()):
                if len(found) > _WIDE:
                    break
                for ends in (costs.targets[flow], costs.sources[flow]):
                    for each in ends if len(ends) <= 4 else rng.sample(ends, 4):
                        near = list(account.places[each])
                        found.update(near if len(near) <= 4 else rng.sample(near, 4))
        found.update(rng.sample(range(costs.devices), 8))
        return np.array(sorted(found), dtype=np.int64)

    def step(self, heat: float) -> bool:
        """Ruins and recreates once; keeps the result if it is better, or by chance at some heat.

        Returns:
            was it kept?
        """
        before, waiting = self.account.price, dict(self.pool)
        pool = dict(self.pool)
        ruined = self.ruin(pool)
        among = self._candidates(pool, ruined)
        noise = self._rng.choice((0.0, 0.0, 0.1, 0.4))
        left = self.fill(pool, self.order(pool), among, noise)
        if self._accept(before, waiting, left, heat):
            self.pool = left
            self.keep()
            return True
        self.undo()
        return False

    def _accept(self, before: float, waiting: Pool, left: Pool, heat: float) -> bool:
        if left or waiting:
            for kind in left:
                self._absent[kind] += 1.0
            was, now = self._missing(waiting), self._missing(left)
            if now != was:
                return now < was
        worse = self.account.price - before
        return worse <= 0 or (heat > 0 and self._rng.random() < exp(-worse / heat))

    @property
    def missing(self) -> float:
        """How much waits in the pool, as a share of what the crowd can spend."""
        return sum(self.sizes[kind] * count for kind, count in self.pool.items())

    def _missing(self, pool: Pool) -> float:
        return sum(self._absent[kind] * self.sizes[kind] * count for kind, count in pool.items())

    def anneal(self, work: float, hot: float, cold: float) -> None:
        """Steps until so much work is done, while the heat falls; ends with the best found."""
        start, waiting = self.work, bool(self.pool)
        best, kept = self.account.price, self._copy()
        while self.work - start < work:
            done = (self.work - start) / work
            self.work += 1
            if self.step(hot * (cold / hot) ** done if hot else 0.0) and not self.pool:
                if waiting or self.account.price < best:
                    waiting, best, kept = False, self.account.price, self._copy()
        if self.account.price > best and not waiting:
            self.restore(kept)

    def _copy(self) -> list[dict[int, int]]:
        return [dict(each) for each in self.account.contents]

    def restore(self, contents: list[dict[int, int]]) -> None:
        """Back to an earlier slicing."""
        for device, wanted in enumerate(contents):
            have = self.account.contents[device]
            for kind in [*have]:
                if wanted.get(kind, 0) < have[kind]:
                    self.account.drop(kind, device, have[kind] - wanted.get(kind, 0))
        for device, wanted in enumerate(contents):
            have = self.account.contents[device]
            for kind, count in wanted.items():
                if count > have.get(kind, 0):
                    self.account.add(kind, device, count - have.get(kind, 0))
        self._log.clear()


def sizes_of(costs: Costs) -> list[float]:
    """How large one of each kind is: its larger share of all that the crowd can spend."""
    compute = max(float(costs.compute.clip(0).sum()), 1e-300)
    memory = max(float(costs.memory.clip(0).sum()), 1e-300)
    return [max(k.flops / compute, k.memory / memory, 1e-12) for k in costs.kinds]


def _over(account: Account, device: int) -> bool:
    costs = account.costs
    return bool(
        account.compute[device] > costs.compute[device]
        or account.memory[device] > costs.memory[device]
        or any(
            account.seen[number, device] > guard.cap for number, guard in enumerate(costs.guards)
        )
    )


def _excess(account: Account, device: int) -> float:
    """Need over budget, as shares, added up."""
    costs, total = account.costs, 0.0
    for used, cap in (
        (account.compute[device], costs.compute[device]),
        (account.memory[device], costs.memory[device]),
        *((account.seen[n, device], guard.cap) for n, guard in enumerate(costs.guards)),
    ):
        if used > cap:
            total += float((used - cap) / max(abs(cap), 1e-9))
    return total
