"""One attack on all seats of a run, through its seal."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch

from privbench.contract import Guess, Seat, View, child_rng, spec_of
from privbench.errors import NotApplicable
from privbench.oracle import CountingOracle
from privbench.plan import Plan
from privbench.report.report import Refusal
from privbench.seal import Seal


class Attacked(NamedTuple):
    """Views, a guess for each, and refusals that count the seats to which the attack does not apply."""

    views: tuple[View, ...]
    guesses: list[Guess]
    refusals: tuple[Refusal, ...] = ()


def attacked(
    plan: Plan, views: tuple[View, ...], seal: Seal, oracle: CountingOracle | None
) -> Attacked:
    """Attack all seats together; where the attack does not apply to some, those that are left by halves.

    Raises:
        NotApplicable: it applies to none.
    """
    spec, seed = spec_of(plan.attack), attack_seed(plan)
    refused: list[tuple[Seat, NotApplicable]] = []

    def together(views: tuple[View, ...]) -> list[tuple[View, Guess]]:
        try:
            return list(zip(views, seal.attack(spec, views, seed, oracle), strict=True))
        except NotApplicable as error:
            if len(views) == 1:
                refused.append((views[0].seat, error))
                return []
        half = len(views) // 2
        return together(views[:half]) + together(views[half:])

    done = together(views)
    if not done:
        raise refused[0][1]
    reasons = Counter(
        (str(why).replace(f"'{seat.name}'", "this seat"), seat.column) for seat, why in refused
    )
    refusals = tuple(Refusal(why, count, column) for (why, column), count in reasons.items())
    return Attacked(tuple(view for view, _ in done), [guess for _, guess in done], refusals)


def attack_seed(plan: Plan) -> int:
    """Seed of fits and attacks; not that of training."""
    return child_rng(torch.Generator().manual_seed(plan.seed), "attack").initial_seed()
