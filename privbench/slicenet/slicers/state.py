"""An incremental account of a slicing: what it costs, and what any move would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from privbench.slicenet.problem import Slicing
from privbench.slicenet.slicers.costs import Costs


@dataclass(frozen=True, eq=False)
class Offers:
    """What devices ask for taking vertices of one kind; the price of m is ``first + m * each``.

    Args:
        first: price of having the first (the inputs that it needs).
        each: price of every one (what it makes and need not receive any more comes off).
        fit: how many a device can take within its budgets.
    """

    first: Float64[np.ndarray, " devices"]
    each: Float64[np.ndarray, " devices"]
    fit: Float64[np.ndarray, " devices"]


class Account:
    """Who hosts how many of each kind, with every sum kept up to date.

    The volume is a sum over devices of what each receives (connectivity minus one, counted where it
    arrives), so a move changes the terms of two devices alone. Vertices of one kind are counted,
    not named: whoever wants names calls ``slicing``. Prices are those of ``Costs``, whole numbers
    in float64: exact below 2**53.

    Args:
        costs: the problem in arrays.
    """

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        flows, devices = len(costs.numbers), costs.devices
        self.here = np.zeros((flows, devices), dtype=bool)  # does a target of the flow live there?
        self.need = np.repeat(
            costs.numbers[:, None], devices, axis=1
        )  # what its first would receive
        self.compute = costs.compute.copy()  # FLOP a step left
        self.memory = costs.memory.copy()  # bytes left
        self.unseen = np.array([[guard.cap] * devices for guard in costs.guards])
        self.contents: list[dict[int, int]] = [{} for _ in range(devices)]
        self.places: list[dict[int, int]] = [{} for _ in costs.kinds]
        self.price = 0.0
        self._targets: list[dict[int, int]] = [{} for _ in range(flows)]
        self._made: list[dict[int, float]] = [{} for _ in range(flows)]
        self._needs = [kind.needs.tolist() for kind in costs.kinds]
        self._makes = [
            list(zip(kind.makes.tolist(), kind.numbers.tolist(), kind.loops.tolist(), strict=True))
            for kind in costs.kinds
        ]
        self._owners = [[f for f in needs if costs.owned[f]] for needs in self._needs]
        self._away = costs.away.tolist()
        self._beyond = costs.away - costs.scale
        self._numbers = costs.numbers.tolist()
        self._owned = costs.owned.tolist()
        ease = max(float(costs.compute.max(initial=0.0)), 1e-300)
        self._ease = 1e-4 / ease  # a preference for full devices, below any price

    @property
    def volume(self) -> Fraction:
        """Bytes per sample, as ``problem.volume`` has it, of what is placed."""
        return Fraction(self.price) / int(self.costs.scale) * 2 * self.costs.problem.element

    def load(self, hosts: Sequence[int]) -> None:
        """Adds every vertex to the device that hosts it."""
        counts: dict[tuple[int, int], int] = {}
        for vertex, host in enumerate(hosts):
            at = (self.costs.kind_of[vertex], int(host))
            counts[at] = counts.get(at, 0) + 1
        for (kind, device), count in counts.items():
            self.add(kind, device, count)

    def slicing(self) -> Slicing:
        """Names: vertices of a kind are dealt in order to its devices in order."""
        hosts = [-1] * len(self.costs.kind_of)
        for kind, places in zip(self.costs.kinds, self.places, strict=True):
            vertices = iter(kind.vertices)
            for device in sorted(places):
                for _ in range(places[device]):
                    hosts[next(vertices)] = device
        return Slicing(tuple(hosts))

    def move(self, vertex: int, origin: int, device: int) -> None:
        """Takes a vertex from one device to another."""
        kind = self.costs.kind_of[vertex]
        self.drop(kind, origin, 1)
        self.add(kind, device, 1)

    def add(self, kind: int, device: int, count: int) -> None:
        """Gives a device so many more of a kind."""
        self._shift(kind, device, count)
        mine = self.contents[device]
        mine[kind] = mine.get(kind, 0) + count
        self.places[kind][device] = mine[kind]

    def drop(self, kind: int, device: int, count: int) -> None:
        """Takes so many of a kind from a device."""
        self._shift(kind, device, -count)
        left = self.contents[device][kind] - count
        if left:
            self.contents[device][kind] = self.places[kind][device] = left
        else:
            del self.contents[device][kind], self.places[kind][device]

    def _shift(self, kind: int, device: int, count: int) -> None:
        costs, what = self.costs, self.costs.kinds[kind]
        received, away = 0.0, self._away[device]
        for flow, numbers, _ in self._makes[kind]:
            made, mine = self._made[flow], count * numbers
            made[device] = made.get(device, 0.0) + mine
            if device in self._targets[flow]:
                received -= mine
            else:
                self.need[flow, device] -= mine
                self._see(flow, device, mine)
        price = received * costs.scale + count * what.to_owners * away
        for flow in self._needs[kind]:
            targets = self._targets[flow]
            before = targets.get(device, 0)
            if before + count:
                targets[device] = before + count
                if before:
                    continue
            else:
                del targets[device]
            rest = self._numbers[flow] - self._made[flow].get(device, 0.0)
            self.here[flow, device] = not before
            self.need[flow, device] = rest if before else 0.0
            rest = -rest if before else rest
            received += rest
            price += rest * (away if self._owned[flow] else costs.scale)
            self._see(flow, device, rest)
        self.price += price
        self.compute[device] -= count * what.flops
        self.memory[device] -= count * what.memory + costs.bytes * received

    def _see(self, flow: int, device: int, numbers: float) -> None:
        if self.costs.guards and self.costs.guard_of[flow] >= 0:
            self.unseen[self.costs.guard_of[flow], device] -= numbers

    def over(self, device: int) -> bool:
        """Does it break a budget or a guard?"""
        return bool(
            self.compute[device] < 0
            or self.memory[device] < 0
            or (self.costs.guards and self.unseen[:, device].min() < 0)
        )

    def asks(self, kind: int) -> Float64[np.ndarray, " devices"]:
        """Price of one more of a kind, by device; infinite where it does not fit.

        Among equal prices the fuller device asks a trifle less.
        """
        costs, what = self.costs, self.costs.kinds[kind]
        received = self._first(kind) - self._saved(kind)
        ask = received * costs.scale if costs.scale != 1.0 else received.copy()
        for flow in self._owners[kind]:
            ask += self.need[flow] * self._beyond
        if what.to_owners:
            ask += what.to_owners * costs.away
        ask += self._ease * self.compute
        ask[self.compute < what.flops] = np.inf
        ask[self.memory - costs.bytes * received < what.memory] = np.inf
        if costs.guards:
            ask[self._sights(kind) < 1] = np.inf
        return ask

    def offers(self, kind: int) -> Offers:
        """What each device asks for taking vertices of a kind."""
        costs, what = self.costs, self.costs.kinds[kind]
        first, saved = self._first(kind), self._saved(kind)
        price = costs.scale * first
        for flow in self._owners[kind]:
            price += self.need[flow] * self._beyond
        each = what.to_owners * costs.away - costs.scale * saved
        fit = _fit(self.compute, what.flops)
        left = self.memory - costs.bytes * first
        fit = np.minimum(fit, _fit(left, what.memory - costs.bytes * saved))
        if costs.guards:
            fit = np.minimum(fit, self._sights(kind))
        return Offers(price, each, fit)

    def _first(self, kind: int) -> np.ndarray:
        """Numbers a sample that the first of a kind makes a device receive."""
        needs = self._needs[kind]
        if len(needs) == 1:
            return self.need[needs[0]]
        return self.need[needs].sum(axis=0)

    def _saved(self, kind: int) -> np.ndarray | float:
        """Numbers a sample that a device need not receive any more for each of a kind."""
        makes = self._makes[kind]
        if len(makes) > 4:
            what = self.costs.kinds[kind]
            return what.numbers @ (self.here[what.makes] | what.loops[:, None])
        saved: np.ndarray | float = 0.0
        for flow, numbers, loop in makes:
            saved = saved + (numbers if loop else numbers * self.here[flow])
        return saved

    def _sights(self, kind: int) -> np.ndarray:
        """How many of a kind a device may take before it sees more than its guards let it."""
        costs = self.costs
        fit = np.full(costs.devices, np.inf)
        flows = [*self._needs[kind], *(flow for flow, _, _ in self._makes[kind])]
        for guard in sorted({costs.guard_of[flow] for flow in flows} - {-1}):
            left, each = self.unseen[guard], np.zeros(costs.devices)
            for flow in self._needs[kind]:
                if costs.guard_of[flow] == guard:
                    left = left - self.need[flow]
            for flow, count, loop in self._makes[kind]:
                if costs.guard_of[flow] == guard and not loop:
                    each += count * ~self.here[flow]
            fit = np.minimum(fit, _fit(left, each))
        return fit


def _fit(left: np.ndarray, each: np.ndarray | float) -> np.ndarray:
    """How many of size ``each`` go into what is left: none where even the first does not."""
    some = np.asarray(each) > 0
    count = np.floor(left / np.where(some, each, 1.0))
    return np.where(left < 0, 0.0, np.where(some, count, np.inf))
