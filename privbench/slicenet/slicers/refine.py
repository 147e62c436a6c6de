"""Ruin and recreate: takes related vertices out of a slicing and puts them back better."""

from __future__ import annotations

from math import exp
from random import Random

from privbench.slicenet.slicers.costs import Costs
from privbench.slicenet.slicers.draft import Draft, Pool

_LENIENT, _STRICT = 2.0, 20.0  # fines for what has no host, in prices of placing as much
_LUMPS = 12  # most that one step takes out; more is a new slicing rather than a change


class Search(Draft):
    """Betters a draft step by step, within budgets at every moment.

    One step takes related vertices out of a few devices, puts them back one kind at a time, where
    one more costs least, and keeps the result if it is better, or by chance if hardly worse. It
    covers moves, swaps, group moves and emptying devices. After Schrimpf, Schneider,
    Stamm-Wilbrandt, Dueck, "Record Breaking Optimization Results Using the Ruin and Recreate
    Principle", 2000, https://doi.org/10.1006/jcph.1999.6413, with the counters of absence of
    Christiaens, Vanden Berghe, "Slack Induction by String Removals for Vehicle Routing Problems",
    2020, https://doi.org/10.1287/trsc.2019.0914; differs by what is ruined: devices, flows and
    neighbourhoods of a hypergraph.

    Args:
        costs: the problem in arrays.
        seed: of every random choice.
        noises: one of them is drawn each step: how far prices may be misjudged, in units of ``unit``.
    """

    def __init__(
        self, costs: Costs, seed: int, noises: tuple[float, ...] = (0.0, 0.0, 0.1, 0.4)
    ) -> None:
        super().__init__(costs, seed)
        self._rng = Random(seed)
        self._noises = noises
        self._placing = 0.0  # price of what is placed, for all the crowd's budgets' worth
        self._absent = [1.0] * len(costs.kinds)

    def anneal(self, work: float, hot: float, cold: float) -> None:
        """Steps until so much work is done, while the heat falls; ends with the best found.

        On the way some may lack a host, for a fine that rises: a detour that pays where budgets
        are tight. What is within budgets at the start is so at the end.

        Args:
            work: insertions to try.
            hot: heat at the start, in units of ``unit``; 0 = never accept a worse slicing.
            cold: heat at the end.
        """
        start = self.work
        self.measure()
        best = float("inf") if self.pool else self.account.price
        self.mark()
        while self.work - start < work:
            done = (self.work - start) / work
            heat = self.unit * hot * (cold / hot) ** done if hot else 0.0
            fine = self._placing * _LENIENT * (_STRICT / _LENIENT) ** done
            self.work += 1
            if self.step(heat, fine) and not self.pool and self.account.price < best:
                best = self.account.price
                self.mark()
        if best < float("inf") and (self.pool or self.account.price > best):
            self.rewind()
            self.pool = {}

    def measure(self) -> None:
        """Sets ``unit`` by what is placed now."""
        account = self.account
        self.unit = account.price / max(1, int(account.here.sum()))
        whole = sum(
            len(kind.vertices) * size
            for kind, size in zip(self.costs.kinds, self.sizes, strict=True)
        )
        self._placing = account.price / max(whole - self.missing, 1e-12)

    def step(self, heat: float, fine: float = float("inf")) -> bool:
        """Ruins and recreates once; keeps the result if it is better, or by chance at some heat.

        Args:
            heat: how much worse a kept slicing may typically be, as a price.
            fine: price of leaving all the crowd's budgets' worth without a host; infinite = less
                without a host is better whatever it costs.

        Returns:
            was it kept?
        """
        before, pool = self.account.price, dict(self.pool)
        self._ruin(pool)
        left = self.fill(pool, self._order(pool), self._rng.choice(self._noises))
        if self._accept(before, left, heat, fine):
            self.pool = left
            self.keep()
            return True
        self.undo()
        return False

    def _accept(self, before: float, left: Pool, heat: float, fine: float) -> bool:
        worse = self.account.price - before
        if left or self.pool:
            if fine < float("inf"):
                worse += fine * (self.lacking(left) - self.missing)
            else:
                for kind in left:
                    self._absent[kind] += 1.0
                was, now = self._weight(self.pool), self._weight(left)
                if now != was:
                    return now < was
        return worse <= 0 or (heat > 0 and self._rng.random() < exp(-worse / heat))

    def _weight(self, pool: Pool) -> float:
        """Of what has no host: more for what is often left over."""
        return sum(self._absent[kind] * self.sizes[kind] * count for kind, count in pool.items())

    def _order(self, pool: Pool) -> list[int]:
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

    def _ruin(self, pool: Pool) -> None:
        """Takes something out into the pool."""
        rng = self._rng
        kind = rng.randrange(len(self.costs.kinds))
        choice = rng.random()
        if choice < 0.25:
            devices = self._devices_out(pool, kind, rng.choice((1, 2, 2, 3, 4)))
        elif choice < 0.5:
            devices = self._flow_out(pool, kind, rng.choice((1, 1, 2, 3, 4)))
        else:
            devices = self._ball(pool, kind, rng.choice((1, 1, 2, 2, 3, 5, 8)))
        self.relieve(devices, pool)

    def _devices_out(self, pool: Pool, kind: int, count: int) -> list[int]:
        """Some devices that share flows give all they host, or some of it where that is much."""
        rng, account = self._rng, self.account
        if not account.places[kind]:
            return self._ball(pool, kind, count)
        found = {rng.choice(list(account.places[kind])): None}
        for _ in range(2 * count):
            if len(found) < count:
                other = rng.choice(list(account.contents[rng.choice(list(found))]))
                near = account.places[self._neighbour(other)]
                if near:
                    found[rng.choice(list(near))] = None
        lumps = [(k, d, n) for d in found for k, n in account.contents[d].items()]
        for each, device, held in rng.sample(lumps, min(len(lumps), 2 * _LUMPS)):
            self.take(pool, each, device, held)
        return list(found)

    def _flow_out(self, pool: Pool, kind: int, count: int) -> list[int]:
        """All targets of a flow leave some of their devices."""
        rng, account = self._rng, self.account
        needs = self.costs.kinds[kind].needs.tolist()
        if not needs:
            return self._ball(pool, kind, count)
        targets = self.costs.targets[rng.choice(needs)]
        if len(targets) > 4 * _LUMPS:
            place = rng.randrange(len(targets))
            targets = targets[place : place + 4 * _LUMPS]
        devices = list(dict.fromkeys(d for each in targets for d in account.places[each]))
        devices = rng.sample(devices, min(len(devices), count))
        lumps = [
            (each, device, account.contents[device][each])
            for device in devices
            for each in targets
            if each in account.contents[device]
        ]
        for each, device, held in rng.sample(lumps, min(len(lumps), _LUMPS)):
            self.take(pool, each, device, held)
        return devices

    def _ball(self, pool: Pool, kind: int, count: int) -> list[int]:
        """Lumps of related kinds, wherever they are."""
        rng, account = self._rng, self.account
        devices: dict[int, None] = {}
        for _ in range(count):
            if account.places[kind]:
                device = rng.choice(list(account.places[kind]))
                held = account.contents[device][kind]
                some = held if held == 1 or rng.random() < 0.7 else rng.randint(1, held)
                self.take(pool, kind, device, some)
                devices[device] = None
            kind = self._neighbour(kind)
        return list(devices)

    def _neighbour(self, kind: int) -> int:
        """A kind that shares a flow with this one, or any where it has none."""
        rng, what = self._rng, self.costs.kinds[kind]
        flows = len(what.needs) + len(what.makes)
        if not flows:
            return rng.randrange(len(self.costs.kinds))
        place = rng.randrange(flows)
        needs = len(what.needs)
        flow = int(what.needs[place] if place < needs else what.makes[place - needs])
        ends = self.costs.targets[flow] if rng.random() < 0.5 else self.costs.sources[flow]
        return rng.choice(ends) if ends else kind
