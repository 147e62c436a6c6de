"""Devices that fail: how often, for how long, and what the crowd does then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from privbench.errors import UsageError
from privbench.slicenet.crowd import Device

EVENTS = ("drop", "return", "straggle")
ON_DROP = ("take_over", "skip")
Event = tuple[int, int, str]
"""(step, number of the device, one of ``EVENTS``)."""

EXPECTED = "expected [step, device, drop|return|straggle], for example [3, 2, drop]"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong in a crowd while it trains. The defaults: nothing. (ours)

    That devices drop out and straggle is common ground of learning in crowds (P. Kairouz et al.:
    Advances and Open Problems in Federated Learning, 2021, https://arxiv.org/abs/1912.04977); here
    a device takes with it a part of the network. Copies every K steps are checkpoints (J. W. Young:
    A First Order Approximation to the Optimum Checkpoint Interval, 1974,
    https://doi.org/10.1145/361147.361115) that another device keeps.

    All that is drawn depends on ``seed``, the step and the device's number alone: not on who listens,
    nor on the batches.

    Args:
        drop_rate: probability that a device leaves at the beginning of a step.
        return_after: steps that it stays away; 0 = it never returns.
        straggle_rate: probability that a device is slow in a step.
        slowdown: factor on what a slow device takes for computing, sending and receiving.
        deadline: simulated seconds after which a step is given up; 0 = it is waited for.
        loss_rate: probability that a message is lost.
        retries: how often a message that was lost is sent again before the step is given up.
        schedule: what happens by plan, for example ``[[3, 2, drop], [6, 2, return]]``: device 2 is
            away in steps 3, 4 and 5.
        copy_every: steps after which each host sends its slices to its buddies; 0 = no copies.
        buddies: devices that keep these copies and stand in; with one, a step is skipped as soon as
            some device and its buddy are away together, which in a large crowd happens often.
        on_drop: ``take_over``: a buddy hosts the slices of a device that is away; ``skip``: steps
            are skipped until it is back.
        seed: of all draws.

    Raises:
        UsageError: a number out of range, an odd event, or copies that nobody would use.
    """

    drop_rate: float = 0.0  # a step and device
    return_after: int = 0  # steps
    straggle_rate: float = 0.0  # a step and device
    slowdown: float = 4.0  # factor on seconds
    deadline: float = 0.0  # simulated seconds
    loss_rate: float = 0.0  # a message
    retries: int = 3
    schedule: tuple[Event, ...] = ()
    copy_every: int = 0  # steps
    buddies: int = 1  # devices for each that hosts
    on_drop: str = "take_over"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("drop_rate", "straggle_rate", "loss_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"faults.{name}={getattr(self, name)}; expected a probability from 0 to below 1"
                )
        for name in ("return_after", "retries", "copy_every", "seed"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise UsageError(f"faults.{name}={value}; expected a whole number, at least 0")
        if type(self.buddies) is not int or self.buddies < 1:
            raise UsageError(
                f"faults.buddies={self.buddies}; expected at least 1 (nobody: faults.on_drop=skip)"
            )
        if not 1 <= self.slowdown < inf:
            raise UsageError(f"faults.slowdown={self.slowdown}; expected a factor of at least 1")
        if not 0 <= self.deadline < inf:
            raise UsageError(
                f"faults.deadline={self.deadline}; expected seconds, or 0 to wait for every step"
            )
        if self.on_drop not in ON_DROP:
            raise UsageError(f"faults.on_drop='{self.on_drop}'; expected {' or '.join(ON_DROP)}")
        if self.copy_every and self.on_drop == "skip":
            raise UsageError(
                f"faults.copy_every={self.copy_every} with faults.on_drop=skip: nobody would use the "
                "copies; type faults.copy_every=0, or faults.on_drop=take_over"
            )
        if isinstance(self.schedule, str) or not isinstance(self.schedule, Sequence):
            raise UsageError(f"faults.schedule={self.schedule!r}; {EXPECTED} in a list")
        events = tuple(sorted((_event(each) for each in self.schedule), key=_order))
        object.__setattr__(self, "schedule", events)

    @property
    def quiet(self) -> bool:
        """Does nothing happen at all, so that training equals centralized training's?"""
        rates = (self.drop_rate, self.straggle_rate, self.loss_rate)
        return not (any(rates) or self.schedule or self.copy_every or self.deadline)

    def until(self, steps: int) -> Faults:
        """The same for a training of so many steps: without what is scheduled for later ones."""
        return replace(self, schedule=tuple(event for event in self.schedule if event[0] < steps))

    def slowed(self, device: Device) -> Device:
        """A device in a step in which it straggles."""
        return replace(
            device,
            speed=device.speed / self.slowdown,
            up=device.up / self.slowdown,
            down=device.down / self.slowdown,
            latency=device.latency * self.slowdown,
        )

    def check_crowd(self, devices: int, steps: int) -> None:
        """Refuse a schedule that names a device or a step that there is not.

        Raises:
            UsageError: so it does.
        """
        for step, device, what in self.schedule:
            if device >= devices or step >= steps:
                raise UsageError(
                    f"faults.schedule names step {step}, device {device} ({what}); expected devices 0 "
                    f"to {devices - 1} and steps 0 to {steps - 1}"
                )


def _event(given: Sequence[object]) -> Event:
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 3:
        raise UsageError(f"faults.schedule holds {given!r}; {EXPECTED}")
    step, device, what = given
    if type(step) is not int or type(device) is not int or min(step, device) < 0:
        raise UsageError(f"faults.schedule holds {list(given)}; {EXPECTED}")
    if what not in EVENTS:
        raise UsageError(f"faults.schedule holds {list(given)}; {EXPECTED}")
    return step, device, str(what)


def _order(event: Event) -> tuple[int, int, int]:
    """Returns of a step come before its drop-outs."""
    step, device, what = event
    return step, ("return", "drop", "straggle").index(what), device
