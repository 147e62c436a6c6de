"""What training costs: work, bytes, seconds and joules, in one kind of numbers for all regimes."""

from __future__ import annotations

from dataclasses import dataclass

from privbench.contract.message import Party


@dataclass(frozen=True)
class Carried:
    """Bytes that messages of one kind take in a step, without headers."""

    kind: str
    nbytes: float


@dataclass(frozen=True)
class Cost:
    """What one party spends in a step (a round, in federated averaging)."""

    party: Party
    flops: float  # FLOP computed
    sent: float  # bytes, without headers
    received: float  # bytes
    memory: float  # bytes held at most
    seconds: float  # computing
    joules: float  # computing, sending and receiving


@dataclass(frozen=True)
class Bill:
    """What a step costs all parties under one regime, simulated.

    Args:
        regime: its name.
        rows: records that a step learns from.
        seconds: of a step, from its first computation to its last byte, in simulated time.
        costs: of each party.
        kinds: bytes by kind of message, all parties together.
    """

    regime: str
    rows: float
    seconds: float
    costs: tuple[Cost, ...]
    kinds: tuple[Carried, ...]

    @property
    def nbytes(self) -> float:
        """Bytes that all messages of a step take."""
        return sum(each.nbytes for each in self.kinds)


@dataclass(frozen=True)
class Volume:
    """What a slicer makes of the same slicing problem.

    Args:
        slicer: its name.
        nbytes: of activations, partial sums and gradients between devices, per sample; None = it
            found no slicing that keeps the budgets.
        devices: that host anything.
        reason: why it found none.
        chosen: is it the one that was trained with?
    """

    slicer: str
    nbytes: float | None
    devices: int = 0
    reason: str = ""
    chosen: bool = False
