"""A slicing under change: taking out, putting in where one more costs least, and taking that back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np

from privbench.slicenet.slicers.costs import Costs
from privbench.slicenet.slicers.state import Account

Pool = dict[int, int]
"""How many vertices of which kind no device hosts at the moment."""


class Draft:
    """A slicing whose devices keep their budgets, and a pool of what has no host yet.

    So an infeasible slicing is one with a pool. Changes are noted and can be taken back.

    Args:
        costs: the problem in arrays.
        seed: of the noise on prices.
    """

    def __init__(self, costs: Costs, seed: int) -> None:
        self.costs = costs
        self.account = Account(costs)
        self.pool: Pool = {}
        self.work = 0.0  # insertions tried, in units of some ten microseconds
        self.unit = 0.0  # what receiving one flow costs a device, on average
        self.sizes = sizes_of(costs)
        self._noise = np.random.default_rng(seed)
        self._log: list[tuple[int, int, int]] = []
        self._kept: list[tuple[int, int, int]] = []  # since the last mark
        self._effort = [
            1.0 + (len(kind.needs) + len(kind.makes)) * (0.05 + costs.devices / 4000)
            for kind in costs.kinds
        ]

    @property
    def missing(self) -> float:
        """How much waits in the pool, as a share of what the crowd can spend."""
        return self.lacking(self.pool)

    def lacking(self, pool: Pool) -> float:
        """How much is in a pool, as a share of what the crowd can spend."""
        return sum(self.sizes[kind] * count for kind, count in pool.items())

    def put(self, kind: int, device: int, count: int) -> None:
        """Gives a device so many of a kind; a negative count takes them."""
        self._do(kind, device, count)
        self._log.append((kind, device, count))

    def take(self, pool: Pool, kind: int, device: int, count: int) -> None:
        """From a device into a pool."""
        self.put(kind, device, -count)
        pool[kind] = pool.get(kind, 0) + count

    def undo(self) -> None:
        """Takes back all changes since the last ``keep``."""
        for kind, device, count in reversed(self._log):
            self._do(kind, device, -count)
        self._log.clear()

    def keep(self) -> None:
        """Makes the changes so far lasting."""
        self._kept += self._log
        self._log.clear()

    def mark(self) -> None:
        """Remembers this state: ``rewind`` comes back to it."""
        self._kept.clear()

    def rewind(self) -> None:
        """Back to the last mark."""
        for kind, device, count in reversed(self._kept):
            self._do(kind, device, -count)
        self._kept.clear()

    def _do(self, kind: int, device: int, count: int) -> None:
        if count > 0:
            self.account.add(kind, device, count)
        else:
            self.account.drop(kind, device, -count)

    def fill(self, pool: Pool, order: Sequence[int], noise: float = 0.0) -> Pool:
        """Puts kinds of a pool, in this order, where one more costs least; returns the rest.

        Args:
            pool: what waits; not changed.
            order: its kinds.
            noise: prices of taking the first are raised at random by up to this share.
        """
        left: Pool = {}
        for kind in order:
            count = pool[kind]
            while count:
                self.work += self._effort[kind]
                device, took = self._cheapest(kind, count, noise)
                if not took:
                    left[kind] = count
                    break
                self.put(kind, device, took)
                count -= took
        return left

    def _cheapest(self, kind: int, count: int, noise: float) -> tuple[int, int]:
        """Which device takes how many for the least price each; 0 = nobody can."""
        if count == 1:
            ask = self.account.asks(kind)
            if noise:
                ask += noise * self.unit * self._noise.random(len(ask))
            device = int(ask.argmin())
            return device, int(ask[device] < np.inf)
        offer = self.account.offers(kind)
        fit = np.minimum(offer.fit, count)
        some = fit > 0
        ask = np.where(some, offer.first / np.where(some, fit, 1.0) + offer.each, np.inf)
        if noise:
            ask += noise * self._noise.random(len(ask)) * offer.first / np.where(some, fit, 1.0)
        device = int(ask.argmin())
        ties = np.flatnonzero(ask == ask[device])
        if len(ties) > 1:
            device = int(ties[offer.fit[ties].argmin()])
        return device, int(fit[device])

    def relieve(self, devices: Iterable[int], pool: Pool) -> None:
        """Takes from devices over a budget until they keep it."""
        for device in devices:
            while self.account.contents[device] and self.account.over(device):
                kind, count = self._ballast(device)
                self.take(pool, kind, device, count)

    def _ballast(self, device: int) -> tuple[int, int]:
        """What a device over its budget should give away first: much relief for little volume."""
        account, best = self.account, (float("inf"), -1, 0)
        before, price = self._excess(device), account.price
        for kind, count in list(account.contents[device].items()):
            account.drop(kind, device, count)
            relief = before - self._excess(device)
            worse = (account.price - price) / self.costs.scale
            account.add(kind, device, count)
            if relief <= 0:
                rank = 1e30 + worse
            else:
                rank = worse / relief if worse > 0 else worse * relief
            if rank < best[0]:
                best = (rank, kind, count)
        _, kind, count = best
        what = self.costs.kinds[kind]
        over = max(
            -account.compute[device] / what.flops if what.flops else 0.0,
            -account.memory[device] / what.memory if what.memory else 0.0,
            1.0,
        )
        return kind, ceil(min(over, count))

    def _excess(self, device: int) -> float:
        """What lacks, as shares of the budgets, added up."""
        account, costs, total = self.account, self.costs, 0.0
        for left, cap in (
            (account.compute[device], costs.compute[device]),
            (account.memory[device], costs.memory[device]),
            *((account.unseen[n, device], guard.cap) for n, guard in enumerate(costs.guards)),
        ):
            if left < 0:
                total -= float(left / max(abs(cap), 1e-9))
        return total


def sizes_of(costs: Costs) -> list[float]:
    """How large one of each kind is: its larger share of all that the crowd can spend."""
    compute = max(float(costs.compute.clip(0).sum()), 1e-300)
    memory = max(float(costs.memory.clip(0).sum()), 1e-300)
    return [max(k.flops / compute, k.memory / memory, 1e-12) for k in costs.kinds]
