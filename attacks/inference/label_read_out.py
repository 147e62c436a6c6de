"""Read labels that the protocol sends: nothing is inferred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Attack, LabelGuess, View
from privbench.toolkit.traffic import places


@dataclass(frozen=True, kw_only=True)
class LabelReadOut(Attack):
    """The labels that a seat is sent: a trainer, the server of split learning, a scoring host.

    Example::

        privbench regime=slicenet regime.labels=shared threat=host attack=label_read_out
    """

    goal: ClassVar[str] = "label"
    reads: ClassVar[tuple[str, ...]] = ("labels",)
    source: ClassVar[str] = "none: reading what is sent is no technique"
    by_construction: ClassVar[bool] = True

    def run(self, view: View, rng: torch.Generator) -> LabelGuess:
        """The label of each victim whose label was sent."""
        sent = view.select("labels")
        labels = torch.full((len(view.victims),), -1)
        for message in sent:
            rows = torch.stack([torch.full_like(message.rows, message.step), message.rows], dim=1)
            order = message.rows.argsort()
            at = places(rows[order], view.victims)
            labels[at >= 0] = message.payload.long()[order][at[at >= 0]]
        made = labels >= 0
        return LabelGuess(view.victims[made], labels[made])
