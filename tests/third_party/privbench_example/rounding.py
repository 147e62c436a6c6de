"""Messages with fewer digits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from privbench.contract import Message, MessageDefense


@dataclass(frozen=True, kw_only=True)
class Rounding(MessageDefense):
    """Rounds activations to a number of decimals before they leave.

    Args:
        decimals: digits kept after the point.
    """

    kinds: ClassVar[tuple[str, ...]] = ("activation", "partial_sum")
    source: ClassVar[str] = "none: an example"

    decimals: int = 1

    def send(self, message: Message, rng: torch.Generator) -> Message:
        """The same message, rounded."""
        return replace(message, payload=message.payload.round(decimals=self.decimals))
