"""Membership inference by how much noise a record bears before the model changes its mind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, MembershipGuess, Samples, View, child_rng
from privbench.errors import NotApplicable, UsageError
from privbench.toolkit.evidence import labelled, right_choices
from privbench.toolkit.settings import at_least


@dataclass(frozen=True, kw_only=True)
class Boundary(Attack):
    """Members lie further from the decision boundary; answers are labels alone.

    Choquette-Choo, Tramèr, Carlini, Papernot, "Label-Only Membership Inference Attacks", ICML 2021,
    https://arxiv.org/abs/2007.14321 (random noise).

    We differ: several noise levels are asked in place of one that is tuned, and the score is the share of
    noisy copies that keep their label; where queries are bounded, as many copies as they allow.

    Args:
        levels: standard deviations of the noise, in units of the input's range.
        copies: noisy copies of each record and level.

    Example::

        privbench regime=centralized threat=api threat.answers=labels attack=boundary
    """

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = (
        "candidates",
        "released_weights|oracle_probabilities|oracle_labels",
    )
    source: ClassVar[str] = (
        "Choquette-Choo, Tramèr, Carlini, Papernot, Label-Only Membership Inference Attacks, 2021, "
        "https://arxiv.org/abs/2007.14321"
    )

    levels: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    copies: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "copies")
        levels = self.levels
        if not (isinstance(levels, tuple) and levels and all(level > 0 for level in levels)):
            shown = list(levels) if isinstance(levels, tuple) else levels
            raise UsageError(
                f"attack.levels={shown}; expected numbers above 0, for example attack.levels=[0.1,0.3]"
            )

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every candidate by the share of right answers, the record itself counting like a level.

        Raises:
            NotApplicable: no labelled candidates, nothing to ask, or queries for not even one a record.
        """
        candidates = labelled(view, "boundary")
        levels, copies = self._affordable(view, candidates)
        score = right_choices(view, candidates, candidates.x)
        for level in levels:
            for copy in range(copies):
                draw = child_rng(rng, "noise", level, copy)
                noise = torch.randn(candidates.x.shape, generator=draw)
                x = (candidates.x + level * noise).clamp(0, 1)
                score += right_choices(view, candidates, x) / copies
        return MembershipGuess(score / (1 + len(levels)))

    def _affordable(self, view: View, candidates: Samples) -> tuple[tuple[float, ...], int]:
        """Levels and copies that the budget of queries allows."""
        budget = view.budget.queries if view.public.net is None else None
        if budget is None:
            return self.levels, self.copies
        each = budget // max(1, len(candidates)) - 1
        if each < 0:
            raise NotApplicable(
                f"boundary asks about each of {len(candidates)} candidates, and "
                f"threat.budget.queries={budget} allows fewer; raise it"
            )
        levels = self.levels[: max(0, each)]
        return levels, min(self.copies, each // len(levels)) if levels else 0
