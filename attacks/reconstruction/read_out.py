"""Read raw samples where the protocol sends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, ReconstructionGuess, View
from privbench.errors import NotApplicable
from privbench.toolkit.priors import expected
from privbench.toolkit.traffic import places


@dataclass(frozen=True, kw_only=True)
class ReadOut(Attack):
    """Copies the samples out of the messages: whoever trains centrally holds them all.

    No inference takes place, so its score says what a protocol hands over, not what leaks.
    """

    goal: ClassVar[str] = "reconstruction"
    reads: ClassVar[tuple[str, ...]] = ("samples",)
    by_construction: ClassVar[bool] = True
    source: ClassVar[str] = "none: the protocol of centralized training hands the samples over"

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """Each victim's row as it crossed the wire.

        Raises:
            NotApplicable: the view holds no samples.
        """
        messages = view.select("samples")
        if not messages:
            raise NotApplicable(
                "read_out copies raw samples, and none crossed this seat's wire; choose "
                "regime=centralized threat=trainer"
            )
        rows = torch.cat(
            [torch.stack([torch.full_like(m.rows, m.step), m.rows], dim=1) for m in messages]
        )
        samples = torch.cat([message.payload for message in messages])
        rows, first = _sorted(rows)
        at = places(rows, view.victims)
        guess = expected(view.public, samples.shape[1:]).repeat(
            len(view.victims), *(1 for _ in samples.shape[1:])
        )
        guess[at >= 0] = samples[first[at[at >= 0]]].float()
        return ReconstructionGuess(view.victims, guess)


def _sorted(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows by step and index, and where each of them was before."""
    order = rows[:, 1].argsort(stable=True)
    order = order[rows[order, 0].argsort(stable=True)]
    return rows[order], order
