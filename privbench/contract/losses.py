"""What failing devices do to a crowd: slices that change hands, and what training loses."""

from __future__ import annotations

from dataclasses import dataclass

from privbench.contract.message import Party


@dataclass(frozen=True)
class Handover:
    """Slices that went from one party to another while devices failed (``regime.faults``).

    Args:
        step: at its beginning; the step is computed with what was handed over.
        home: the device that ``Topology.slices`` gives these slices to.
        sender, receiver: who handed over, and who got them.
        reason: ``copy`` (kept in case, not computed with), ``take_over`` (the receiver hosts them
            from an older copy, or from what it had when it left; nothing was sent), ``restart`` (from
            their initial weights, which the releaser sends) or ``return``.
    """

    step: int
    home: Party
    sender: Party
    receiver: Party
    reason: str


@dataclass(frozen=True)
class Losses:
    """What a training run lost to faults.

    Args:
        steps_without_host: skipped, since nobody could host some slice.
        steps_without_rows: skipped, since no owner of a row was there.
        steps_late: given up at the deadline.
        steps_unheard: given up, since a message was lost as often as it may be sent.
        rows_lost: of the batches that were drawn; nothing was learned from them.
        messages_lost: sent and not received, repetitions included.
        bytes_resent: of messages that were sent again.
        bytes_copied: of slices handed over, copies included.
        take_overs: times that a device's slices were hosted on by another, or from an older copy.
        returns: times that they went back.
        parameters_stale: numbers that were set back to an older copy.
        parameters_reset: numbers that were set back to their initial values.
        seconds: of the whole run, in simulated time.
        seconds_lost: of these, those of steps after which the weights were what they were before, and
            what all others took beyond an undisturbed step.
    """

    steps_without_host: int = 0
    steps_without_rows: int = 0
    steps_late: int = 0
    steps_unheard: int = 0
    rows_lost: int = 0
    messages_lost: int = 0
    bytes_resent: int = 0
    bytes_copied: int = 0
    take_overs: int = 0
    returns: int = 0
    parameters_stale: int = 0
    parameters_reset: int = 0
    seconds: float = 0.0
    seconds_lost: float = 0.0

    @property
    def steps_lost(self) -> int:
        """Steps after which the weights were what they were before."""
        skipped = self.steps_without_host + self.steps_without_rows
        return skipped + self.steps_late + self.steps_unheard
