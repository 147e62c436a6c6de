"""Recurrence: is what crosses now the same sample as what crossed in another epoch?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Attack, Block, MembershipGuess, View
from privbench.errors import NotApplicable
from privbench.toolkit.linking import odds
from privbench.toolkit.settings import above, at_least
from privbench.toolkit.traffic import seen_of_victims

Pairs = Int64[Tensor, "n 2"]


@dataclass(frozen=True, kw_only=True)
class Recurrence(Attack):
    """A sample gives nearly the same activation in two epochs, and crosses once in each.

    none: split training has no paper on it. It is record linkage (I. P. Fellegi, A. B. Sunter: A Theory for
    Record Linkage, JASA 1969, https://doi.org/10.1080/01621459.1969.10501049) of activations that drift with
    the weights, one to one.

    No weights and no records are needed: rows that the seat saw in both epochs are assigned to each other
    softly, and how likely the two rows of a pair are one is its score. Whoever can link rows follows a
    person through training, and averages noise away.

    Args:
        sharpness: power of the distance by which a row is less likely.
        rounds: of the soft assignment.
        rows: most rows of an epoch that are compared, beside those asked about.

    Example::

        privbench regime=slicenet threat=host threat.steps=all attack=recurrence
    """

    goal: ClassVar[str] = "recurrence"
    reads: ClassVar[tuple[str, ...]] = ("activation", "partial_sum")
    source: ClassVar[str] = (
        "none: no paper links rows of split training over epochs; record linkage as in Fellegi, Sunter, "
        "A Theory for Record Linkage, 1969, https://doi.org/10.1080/01621459.1969.10501049"
    )

    sharpness: float = 10.0
    rounds: int = 30
    rows: int = 4096  # memory

    def __post_init__(self) -> None:
        super().__post_init__()
        above(self, 0, "sharpness")
        at_least(self, 1, "rounds", "rows")

    def run(self, view: View, rng: torch.Generator) -> MembershipGuess:
        """Score every pair of victims by how likely they are one sample.

        Raises:
            NotApplicable: no pair of which the seat saw the same units, or rows that are no pairs.
        """
        if len(view.victims) % 2:
            raise NotApplicable(f"{len(view.victims)} rows are no pairs; expected an even number")
        asked = view.victims.reshape(-1, 2, 2)
        score = torch.full((len(asked),), torch.nan, dtype=torch.float64)
        for part in seen_of_victims(view, self.reads):
            at = torch.stack([part.find(asked[:, 0]), part.find(asked[:, 1])], dim=1)
            here = (score.isnan() & (at >= 0).all(dim=1)).nonzero().flatten()
            epochs = part.seen.rows[:, 0] // view.topology.steps_per_epoch
            for both in epochs[at[here]].unique(dim=0):
                pairs = here[(epochs[at[here]] == both).all(dim=1)]
                score[pairs] = self._likely(part.seen, epochs, at[pairs], view.device)
        known = ~score.isnan()
        if not bool(known.any()):
            raise NotApplicable(
                f"'{view.seat.name}' saw no sample in two epochs at the same units; type threat.steps=all"
            )
        return MembershipGuess(score.where(known, score[known].median()))

    def _likely(
        self, seen: Block, epochs: Int64[Tensor, " rows"], pairs: Pairs, device: str
    ) -> Float[Tensor, " n"]:
        """Of pairs of the same two epochs, by all rows of these."""
        sides, places = [], []
        for mine in pairs.T:
            rest = (epochs == epochs[mine[0]]).nonzero().flatten()
            rest = rest[~torch.isin(rest, mine)][: self.rows]
            rows, place = torch.cat([mine, rest]).unique(return_inverse=True)
            sides.append(seen.payload[rows].flatten(1).to(device))
            places.append(place[: len(mine)])
        found = odds(sides[0], sides[1], self.sharpness, self.rounds).cpu()
        return found[places[0], places[1]]
