"""A defense that does nothing: for tests of whatever handles defenses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from privbench.contract import Message, MessageDefense


@dataclass(frozen=True, kw_only=True)
class NoDefense(MessageDefense):
    """Sends every message as it is. A double: scores under it must equal those without it."""

    kinds: ClassVar[tuple[str, ...]] = ("activation", "partial_sum", "gradient")
    source: ClassVar[str] = "none: a double for tests"
    double: ClassVar[bool] = True

    def send(self, message: Message, rng: torch.Generator) -> Message:
        """The message itself; draws nothing."""
        return message
