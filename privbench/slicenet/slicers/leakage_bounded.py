"""Least volume under a bound on what any device sees of the shallow layers (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from privbench.errors import BudgetError, UsageError
from privbench.slicenet.problem import Problem, Slicing
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.contest import best
from privbench.slicenet.slicers.costs import Costs, Guard, costs_of
from privbench.slicenet.slicers.kahypar import kahypar_seeds
from privbench.slicenet.slicers.repair import check_hope
from privbench.slicenet.slicers.seeds import orders

_MEND = "regime.tiling=grid, whose hosts get parts of a layer, a deeper regime.stem"


@dataclass(frozen=True, kw_only=True)
class LeakageBounded(Slicer):
    """Bounds which share of a layer's numbers one device makes or receives, then saves volume (ours).

    Layers are counted as they travel: 1 is the last of the stem. Partial sums of a layer count as
    seeing it, apart from its activations. It gives no guarantee: a part of a layer may tell all
    that the whole tells, devices may collude, and gradients are not looked at. Score it by attacks
    and data that the bound was not set with.

    The search is that of ``Hypergraph``, with one more budget for each device and layer.

    Raises:
        UsageError: a share outside (0, 1], a negative depth or leakage, or a bound without a table.
    """

    depth: int = 2  # layers; the share bounds those shallower than this, 0 = none
    share: float = 1.0  # most of a layer that a device may see, part of its numbers; 1 = no bound
    leakage: Mapping[str, float] = field(
        default_factory=dict
    )  # by layer, as measured at full sight
    bound: float = float("inf")  # most of leakage times share, in the table's unit
    effort: float = 1.0  # work of the search: 1 = seconds for some hundred blocks
    seed: int = 0  # of random choices
    kahypar: bool = True  # one more seed from Mt-KaHyPar, where it is installed?

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(
                f"slicer.share={self.share}; expected above 0 and at most 1 (no bound)"
            )
        if self.depth < 0 or not self.effort > 0:
            raise UsageError(
                f"slicer.depth={self.depth}, slicer.effort={self.effort}; expected a depth of at "
                "least 0 layers and an effort above 0"
            )
        if min(self.leakage.values(), default=0.0) < 0 or not self.bound > 0:
            raise UsageError(
                f"slicer.leakage={dict(self.leakage)}, slicer.bound={self.bound}; expected numbers "
                "of at least 0 and a bound above 0"
            )
        if self.bound < float("inf") and not self.leakage:
            raise UsageError(
                f"slicer.bound={self.bound} bounds nothing; expected slicer.leakage={{layer: number}}"
            )

    def slice(self, problem: Problem) -> Slicing:
        """See ``Slicer.slice``."""
        caps = self._caps(problem)
        guards = tuple(
            Guard(sight.layer, sight.flows, caps[sight.layer] * sight.numbers)
            for sight in sights_of(problem)
            if caps[sight.layer] < 1
        )
        costs = costs_of(problem, guards)
        check_hope(costs)
        _check_guards(costs)
        seeds = []
        if self.kahypar:
            hosts = kahypar_seeds(costs, orders(costs)[1], self.seed + 1)
            seeds = [Slicing(tuple(each)) for each in hosts]
        try:
            return best(costs, seeds, self.effort, self.seed)
        except BudgetError as refused:
            if not guards:
                raise
            bounded = sorted({guard.layer for guard in guards})
            raise BudgetError(
                f"{refused}; or the bound on what a device sees of {', '.join(bounded)} is too "
                f"tight: raise slicer.share or slicer.bound, or use {_MEND}"
            ) from None

    def _caps(self, problem: Problem) -> dict[str, float]:
        """Most of each layer that a device may see, as a share."""
        layers = tuple(dict.fromkeys(flow.layer for flow in problem.flows))
        unknown = sorted(set(self.leakage) - set(layers))
        if unknown:
            raise UsageError(
                f"slicer.leakage names layers that do not travel: {', '.join(unknown)}; expected "
                f"some of {', '.join(layers)}"
            )
        caps = {}
        for place, layer in enumerate(layers):
            share = self.share if place + 1 < self.depth else 1.0
            leakage = self.leakage.get(layer, 0.0)
            caps[layer] = min(share, self.bound / leakage) if leakage else share
        return caps


@dataclass(frozen=True)
class Sight:
    """What there is to see of a layer: its activations, or its partial sums.

    Args:
        layer: its name.
        flows: that carry it.
        numbers: of all of it, a sample.
    """

    layer: str
    flows: tuple[int, ...]
    numbers: float


def sights_of(problem: Problem) -> tuple[Sight, ...]:
    """Layers and their flows. Partial sums are those flows that stay within a layer.

    A block that several flows carry counts once in what there is to see, and each time in what a
    device sees: shares are never understated.
    """
    groups: dict[tuple[str, bool], list[int]] = {}
    for number, flow in enumerate(problem.flows):
        within = {problem.vertices[each].layer for each in (*flow.sources, *flow.targets)}
        partial = bool(flow.sources and flow.targets) and len(within) == 1
        groups.setdefault((flow.layer, partial), []).append(number)
    found = []
    for (layer, _), flows in groups.items():
        parts: dict[int, list[int]] = {}
        for number in flows:
            flow = problem.flows[number]
            for source, count in zip(flow.sources or (-1,), flow.numbers, strict=True):
                parts.setdefault(source, []).append(count)
        numbers = 0.0
        for source, counts in parts.items():
            most = sum(counts) if source < 0 else problem.vertices[source].output
            numbers += min(sum(counts), max(most, *counts))
        found.append(Sight(layer, tuple(flows), numbers))
    return tuple(found)


def _check_guards(costs: Costs) -> None:
    """Refuse a bound that no slicing can keep: one flow shows too much to whoever needs it."""
    for kind in costs.kinds:
        for number, guard in enumerate(costs.guards):
            flows = [flow for flow in kind.needs.tolist() if costs.guard_of[flow] == number]
            sight = float(costs.numbers[flows].sum()) + sum(
                count
                for flow, count in zip(kind.makes.tolist(), kind.numbers.tolist(), strict=True)
                if costs.guard_of[flow] == number and flow not in flows
            )
            if sight <= guard.cap:
                continue
            layer = costs.problem.vertices[kind.vertices[0]].layer
            raise BudgetError(
                f"each block of '{layer}' needs or makes {sight:.0f} numbers a sample of layer "
                f"'{guard.layer}', and the bound lets a device see {guard.cap:.0f}: tiled by output, "
                "every host of the next layer sees all of the one before; tiled by input, every host "
                f"makes partial sums of its whole layer; expected {_MEND}, or a larger slicer.share "
                "or slicer.bound"
            )
