"""Whoever sees the model after every step of training: what an accountant of DP-SGD assumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privbench.contract import Seat, Threat, Topology


@dataclass(frozen=True, kw_only=True)
class Iterates(Threat):
    """Sees what each step releases; only an auditor's gradient canaries (``learning.canaries``) fill it.

    The guarantee of DP-SGD covers it: composition counts every step as seen.
    """

    name: ClassVar[str] = "iterates"
    kinds: ClassVar[tuple[str, ...]] = ()

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The auditor of centralized training."""
        if topology.regime != "centralized":
            return ()
        return (Seat("auditor", "outsider", grants=frozenset({"recipe", "every_step"})),)
