"""Devices and crowds: who computes, with how much."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from privbench.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one device can afford. The defaults are a phone that gives a part of its power."""

    compute: float = 2e9  # FLOP a step: a second's share of some tens of GFLOP/s
    memory: float = 256e6  # bytes: what a background task may hold
    up: float = 1.25e6  # bytes/s: 10 Mbit/s
    down: float = 5e6  # bytes/s: 40 Mbit/s
    latency: float = 0.03  # s, one way
    energy_per_flop: float = 1e-10  # J: 10 GFLOP/s a watt
    energy_per_byte: float = 1e-7  # J: about 0.1 mJ a kilobyte over Wi-Fi
    hosts: bool = True  # may it be given a slice?
    owns: bool = True  # does it hold records?

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise UsageError(f"crowd: {name}={value}; expected a number that is not negative")


class Crowd(ABC):
    """A set of devices. Subclasses are frozen dataclasses; adding one = one file and one yaml."""

    @abstractmethod
    def members(self) -> tuple[Device, ...]:
        """The devices, by number."""


@dataclass(frozen=True, kw_only=True)
class Uniform(Crowd):
    """Devices that are all alike.

    Args:
        devices: how many.
        device: what each can afford.

    Raises:
        UsageError: fewer than one device.
    """

    devices: int = 12
    device: Device = Device()

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise UsageError(f"crowd.devices={self.devices}; expected at least 1")

    def members(self) -> tuple[Device, ...]:
        """The devices, by number."""
        return (self.device,) * self.devices


@dataclass(frozen=True, kw_only=True)
class Mixed(Crowd):
    """Devices of several kinds, dealt in turn: device k is of kind ``k % len(kinds)``.

    Args:
        devices: how many.
        kinds: what they can afford.

    Raises:
        UsageError: fewer than one device, or no kind.
    """

    devices: int = 12
    kinds: tuple[Device, ...] = (
        Device(),
        Device(compute=5e8, memory=64e6),  # a watch or a camera
        Device(compute=1e10, memory=1e9, up=5e6, down=12.5e6),  # a laptop
    )

    def __post_init__(self) -> None:
        if self.devices < 1 or not self.kinds:
            raise UsageError(
                f"crowd.devices={self.devices} of {len(self.kinds)} kinds; expected at least 1 of each"
            )

    def members(self) -> tuple[Device, ...]:
        """The devices, by number."""
        return tuple(self.kinds[number % len(self.kinds)] for number in range(self.devices))
