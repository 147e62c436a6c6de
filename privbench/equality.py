"""Regimes whose released model equals another's: checked, then scored once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from privbench.contract import Net
from privbench.data.splits import Opened, open_population
from privbench.plan import Plan
from privbench.report.report import Report
from privbench.store import Store
from privbench.targets import Opening, target_of

LIMIT = 1e-3  # largest difference, in parameters and outputs, that counts as equal


def as_reference(
    plan: Plan,
    target: Opening,
    opened: Opened,
    store: Store,
    carry_out: Callable[[Plan], Report],
) -> Report | None:
    """The report of the regime whose released model this one's equals, named so.

    None where the threat looks at traffic, no regime is equivalent, messages are changed by a
    defense, or the two models differ by more than ``LIMIT``: then the row is one of its own.
    """
    reference = plan.regime.equivalent()
    if reference is None or plan.threat.kinds or plan.defenses:
        return None
    twin = replace(plan, regime=reference, names=replace(plan.names, regime=reference.name))
    other = target_of(twin, open_population(plan.data, plan.seed), store)
    difference = largest_difference(target.trained.net, other.trained.net, opened)
    if difference > LIMIT:
        return None
    reason = f"equal to {reference.name} (max difference {difference:.1e})"
    return replace(carry_out(twin), names=plan.names, status="same_as", reason=reason)


def largest_difference(one: Net, other: Net, opened: Opened) -> float:
    """Largest absolute difference of two networks, over parameters and outputs on held-out records."""
    mine, theirs = one.weights or {}, other.weights or {}
    if mine.keys() != theirs.keys():
        return float("inf")
    gaps = [float((mine[name] - theirs[name]).abs().max()) for name in mine]
    x = opened.population.held_out.x
    with torch.no_grad():
        gaps.append(float((one.module()(x) - other.module()(x)).abs().max()))
    return max(gaps)
