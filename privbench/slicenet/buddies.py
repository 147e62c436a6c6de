"""Who stands in for whom when a device leaves, such that budgets hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from privbench.slicenet.problem import Problem, Slicing, gap_of, needs_of

TRIED = 8  # candidates whose exact need is worked out where the simple bound admits none


class Buddies:
    """Chooses, for each device's slices, another one that can afford them beside its own. (ours)

    A device may stand in for several, and must be able to afford the slices of all of them at once:
    so whoever is away, no budget is broken. It then affords to keep their copies too, which hold no
    gradients and no activations.

    Args:
        problem: budgets and what vertices cost.
        groups: vertices of each home; a group changes hands as a whole.
    """

    def __init__(self, problem: Problem, groups: Mapping[int, tuple[int, ...]]) -> None:
        self._problem, self._groups = problem, groups
        hosts = [0] * len(problem.vertices)
        for home, vertices in groups.items():
            for vertex in vertices:
                hosts[vertex] = home
        needs = needs_of(problem, Slicing(tuple(hosts)))
        owners = np.asarray(problem.own_rows) > 0
        rows = np.asarray(problem.own_rows, dtype=np.float64)
        kept = problem.owner_parameters * (2 + problem.state) * owners
        at_once = np.minimum(rows, problem.at_once)
        outside = problem.element * (kept + at_once * problem.owner_output)
        self._needs = np.stack([needs.flops, needs.memory])
        self._bodies = self._needs - np.stack([rows * problem.owner_flops, outside])
        budgets = [(device.compute, device.memory) for device in problem.devices]
        self._budgets = np.array(budgets, dtype=np.float64).T
        self._may = np.array([device.hosts for device in problem.devices])
        self._vertices = {number: set(groups.get(number, ())) for number in range(len(budgets))}
        self._wards = np.zeros(len(budgets), dtype=np.int64)

    def choose(self, home: int, barred: Collection[int]) -> int | None:
        """Who stands in for the slices of a home; None = nobody can afford them.

        The least loaded one, by the share of its scarcer budget; where loads are equal, whoever
        stands in for fewest. What it would need is first bounded from above: memory of two sets of
        vertices is at most the sum of both.

        Args:
            barred: devices that must not be chosen.
        """
        added = self._bodies[:, home, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            loads = np.nan_to_num((self._needs + added) / self._budgets, posinf=np.inf).max(axis=0)
        loads[~self._may] = np.inf
        loads[list(barred)] = np.inf
        chosen: int | None = None
        if loads.min() <= 1:
            least = np.flatnonzero(loads == loads.min())
            chosen = int(least[np.argmin(self._wards[least])])
        else:
            likely = [int(n) for n in np.argsort(loads, kind="stable")[:TRIED] if loads[n] < np.inf]
            chosen = next((n for n in likely if self._affords(n, home)), None)
        if chosen is not None:
            self._needs[:, chosen] += self._bodies[:, home]
            self._vertices[chosen] |= set(self._groups[home])
            self._wards[chosen] += 1
        return chosen

    def _affords(self, device: int, home: int) -> bool:
        together = self._vertices[device] | set(self._groups[home])
        return gap_of(self._problem, device, together) is None
