"""What guesses about rows are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Samples, child_rng
from privbench.data.truth import Truth
from privbench.scoring.columns import Columns

LINE_UP = 500  # candidates among which a victim is to be found
SWAPS = 10  # times that grouped guesses are matched to strangers, to see what matching alone gives


class LineUp(NamedTuple):
    """Candidates among which a victim is to be found.

    ``x``: in random order; ``place``: where each record of ``train`` stands among them, -1 = nowhere.
    """

    x: Float[Tensor, "m ..."]
    place: Int64[Tensor, " train"]


Perceive = Callable[[Float[Tensor, "n ..."], Float[Tensor, "n ..."]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Bench:
    """What reconstructions are compared with.

    Args:
        truth: which record stood behind each row.
        held_out: non-members, strangers to every guess.
        prior: records of the same distribution that are no candidates (auxiliary where there are).
        auxiliary: what the attacker may hold; None = nothing.
        rng: of decoys and resamples.
        perceive: distance of images to the evaluator's eye; None = nothing to train it on, or no images.
    """

    truth: Truth
    held_out: Samples
    prior: Samples
    auxiliary: Samples | None
    rng: torch.Generator
    perceive: Perceive | None = None

    @cached_property
    def columns(self) -> Columns:
        """What each column is without the view."""
        return Columns.of(self.prior.x)

    @cached_property
    def line_up(self) -> LineUp:
        """At most 500 of all candidates, drawn at random."""
        pool = torch.cat([self.truth.train.x, self.held_out.x])
        order = torch.randperm(len(pool), generator=child_rng(self.rng, "line-up"))[:LINE_UP]
        place = torch.full((len(pool),), -1)
        place[order] = torch.arange(len(order))
        return LineUp(pool[order], place[: len(self.truth.train)])
