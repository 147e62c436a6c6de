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
        self.targets = np.zeros((flows, devices), dtype=np.int32)  # vertices that need the flow
        self.rest = np.repeat(costs.numbers[:, None], devices, axis=1)  # made elsewhere
        self.compute = np.zeros(devices)  # FLOP a step of the slices
        self.memory = np.zeros(devices)  # bytes of the slices, received inputs included
        self.seen = np.zeros((len(costs.guards), devices))
        self.contents: list[dict[int, int]] = [{} for _ in range(devices)]
        self.places: list[dict[int, int]] = [{} for _ in costs.kinds]
        self.price = 0.0
        self._needs = [kind.needs.tolist() for kind in costs.kinds]
        self._makes = [
            list(zip(kind.makes.tolist(), kind.numbers.tolist(), strict=True))
            for kind in costs.kinds
        ]
        self._away = costs.away.tolist()
        self._numbers = costs.numbers.tolist()
        self._owned = costs.owned.tolist()

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
        costs, targets, rest = self.costs, self.targets, self.rest
        what = costs.kinds[kind]
        received, seen = 0.0, [0.0] * len(costs.guards)
        away = self._away[device]
        for flow, numbers in self._makes[kind]:
            here = targets[flow, device] > 0
            rest[flow, device] -= count * numbers
            if here:
                received -= count * numbers
            elif costs.guards and costs.guard_of[flow] >= 0:
                seen[costs.guard_of[flow]] += count * numbers
        price = received * costs.scale + count * what.to_owners * away
        for flow in self._needs[kind]:
            before = int(targets[flow, device])
            targets[flow, device] = before + count
            if (before > 0) == (before + count > 0):
                continue
            left = float(rest[flow, device]) * (1 if count > 0 else -1)
            received += left
            price += left * (away if self._owned[flow] else costs.scale)
            if costs.guards and costs.guard_of[flow] >= 0:
                seen[costs.guard_of[flow]] += left
        self.price += price
        self.compute[device] += count * what.flops
        self.memory[device] += count * what.memory + costs.bytes * received
        if costs.guards:
            self.seen[:, device] += seen

    def offers(self, kind: int, among: np.ndarray | slice = slice(None)) -> Offers:
        """What each device (or each of ``among``) asks for taking vertices of a kind."""
        costs, what = self.costs, self.costs.kinds[kind]
        away = costs.away[among]
        first = np.zeros(len(away))
        price = np.zeros(len(away))
        for flow in self._needs[kind]:
            new = np.where(self.targets[flow, among] == 0, self.rest[flow, among], 0.0)
            first += new
            price += new * (away if self._owned[flow] else costs.scale)
        saved = np.zeros(len(away))
        for number, (flow, count) in enumerate(self._makes[kind]):
            here = self.targets[flow, among] > 0
            saved += count * (here | what.loops[number]) if what.loops[number] else count * here
        each = what.to_owners * away - costs.scale * saved
        with np.errstate(divide="ignore", invalid="ignore"):
            fit = _fit(costs.compute[among] - self.compute[among], what.flops)
            left = costs.memory[among] - self.memory[among] - costs.bytes * first
            fit = np.minimum(fit, _fit(left, what.memory - costs.bytes * saved))
            if costs.guards:
                fit = np.minimum(fit, self._unseen(kind, among))
        return Offers(price, each, fit)

    def _unseen(self, kind: int, among: np.ndarray | slice) -> np.ndarray:
        """How many of a kind a device may take before it sees more than its guards let it."""
        costs, what = self.costs, self.costs.kinds[kind]
        fit = np.full(len(costs.away[among]), np.inf)
        touched = {costs.guard_of[flow] for flow in (*self._needs[kind], *what.makes.tolist())}
        for guard in sorted(touched - {-1}):
            left = costs.guards[guard].cap - self.seen[guard, among]
            each = np.zeros_like(fit)
            for flow in self._needs[kind]:
                if costs.guard_of[flow] == guard:
                    left = left - np.where(
                        self.targets[flow, among] == 0, self.rest[flow, among], 0.0
                    )
            for number, (flow, count) in enumerate(self._makes[kind]):
                if costs.guard_of[flow] == guard and not what.loops[number]:
                    each += count * (self.targets[flow, among] == 0)
            fit = np.minimum(fit, _fit(left, each))
        return fit


def _fit(left: np.ndarray, each: np.ndarray | float) -> np.ndarray:
    """How many of size ``each`` go into what is left: none where even the first does not."""
    return np.where(left < 0, 0.0, np.where(each > 0, np.floor(left / each), np.inf))
