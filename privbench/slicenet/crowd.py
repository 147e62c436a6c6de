"""Devices and crowds: who computes, with how much, and who holds the records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from privbench.errors import UsageError

SHARES = ("iid", "dirichlet")
RATES = ("speed", "up", "down")  # divisors of simulated time
FLAGS = ("hosts", "owns")


@dataclass(frozen=True, kw_only=True)
class Device:
    """What one device can afford. The defaults are a phone that gives a part of its power.

    ``compute`` is a budget: what the owner of the phone lets a training step take; a slicing that
    asks for more is refused. ``speed`` is how fast the device works while it does: it decides
    simulated seconds and forbids nothing.

    Raises:
        UsageError: a number is negative, a rate is 0, or a switch is neither true nor false.
    """

    name: str = ""  # what kind of device it is, for tables
    compute: float = 2e9  # FLOP a step: a second's share of some tens of GFLOP/s
    memory: float = 256e6  # bytes: what a background task may hold
    speed: float = 2e10  # FLOP/s: a middle phone's cores on dense products, see docs/crowds.md
    up: float = 1.25e6  # bytes/s: 10 Mbit/s
    down: float = 5e6  # bytes/s: 40 Mbit/s
    latency: float = 0.03  # s, one way to a device like it
    energy_per_flop: float = 1e-10  # J: 10 GFLOP/s a watt
    energy_per_byte: float = 1e-7  # J, sent or received: about 0.1 mJ a kilobyte over Wi-Fi
    hosts: bool = True  # may it be given a slice?
    owns: bool = True  # does it hold records?

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in FLAGS:
                if type(value) is not bool:
                    raise UsageError(f"crowd: {name}={value!r}; expected true or false")
            elif name != "name" and not value >= 0:
                raise UsageError(f"crowd: {name}={value}; expected a number that is not negative")
            elif name in RATES and not value > 0:
                raise UsageError(f"crowd: {name}={value}; expected more than 0")

    def joules(self, flops: float, nbytes: float) -> float:
        """Energy for so many FLOP, and bytes sent or received; waiting costs nothing."""
        return self.energy_per_flop * flops + self.energy_per_byte * nbytes


@dataclass(frozen=True, kw_only=True)
class Crowd(ABC):
    """A set of devices, and how the records are shared among those that own any.

    Subclasses are frozen dataclasses; adding one = one file and one yaml.

    Args:
        shares: ``iid`` (equal random shares) or ``dirichlet`` (uneven by label).
        alpha: of ``dirichlet``: small = each label lies with few owners; not read otherwise.

    Raises:
        UsageError: an unknown way to share, or ``alpha`` is not more than 0.
    """

    shares: str = "iid"
    alpha: float = 0.5  # as in most experiments after Yurochkin et al. 2019

    def __post_init__(self) -> None:
        if self.shares not in SHARES:
            raise UsageError(f"crowd.shares='{self.shares}'; expected {' or '.join(SHARES)}")
        if not 0 < self.alpha < float("inf"):
            raise UsageError(
                f"crowd.alpha={self.alpha}; expected a number above 0, for example 0.5"
            )
        check_roles(self.members())

    @abstractmethod
    def members(self) -> tuple[Device, ...]:
        """The devices, by number."""

    @property
    def concentration(self) -> float | None:
        """What ``Population.share`` takes: alpha, or None for equal random shares."""
        return self.alpha if self.shares == "dirichlet" else None


@dataclass(frozen=True, kw_only=True)
class Sized(Crowd):
    """A crowd of which one says how many devices it has.

    Args:
        devices: how many.
        owners: only the first so many hold records; None = all that their kind lets.
        hosts: only the last so many may host a slice; None = all that their kind lets.

    With ``devices=12 owners=8 hosts=4`` owners host nothing and hosts own nothing; with ``hosts=6``
    two devices do both.

    Raises:
        UsageError: fewer than one device, or more owners or hosts than devices.
    """

    devices: int = 12
    owners: int | None = None
    hosts: int | None = None

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise UsageError(f"crowd.devices={self.devices}; expected at least 1")
        for name in ("owners", "hosts"):
            count = getattr(self, name)
            if count is not None and not 1 <= count <= self.devices:
                raise UsageError(
                    f"crowd.{name}={count}; expected 1 to {self.devices}, as many as crowd.devices"
                )
        super().__post_init__()

    @abstractmethod
    def profiles(self) -> tuple[Device, ...]:
        """What each device can afford, by number, before ``owners`` and ``hosts`` are heeded."""

    def members(self) -> tuple[Device, ...]:
        """The devices, by number."""
        found = self.profiles()
        if self.owners is None and self.hosts is None:
            return found
        owners = self.devices if self.owners is None else self.owners
        silent = 0 if self.hosts is None else self.devices - self.hosts
        return tuple(
            replace(
                device,
                owns=device.owns and number < owners,
                hosts=device.hosts and number >= silent,
            )
            for number, device in enumerate(found)
        )


@dataclass(frozen=True, kw_only=True)
class Uniform(Sized):
    """Devices that are all alike.

    Args:
        device: what each can afford.
    """

    device: Device = field(default_factory=Device)

    def profiles(self) -> tuple[Device, ...]:
        """See ``Sized.profiles``."""
        return (self.device,) * self.devices


@dataclass(frozen=True, kw_only=True)
class Mixed(Sized):
    """Devices of several kinds, dealt in turn: device k is of kind ``k % len(kinds)``.

    Args:
        kinds: what they can afford.

    Raises:
        UsageError: no kind.
    """

    kinds: tuple[Device, ...] = (
        Device(),
        Device(compute=5e8, memory=64e6, speed=5e9),  # a watch or a camera
        Device(compute=1e10, memory=1e9, speed=1e11, up=5e6, down=12.5e6),  # a laptop
    )

    def __post_init__(self) -> None:
        if not self.kinds:
            raise UsageError("crowd.kinds is empty; expected at least one kind of device")
        super().__post_init__()

    def profiles(self) -> tuple[Device, ...]:
        """See ``Sized.profiles``."""
        return in_turn(self.kinds, self.devices)


def in_turn(kinds: Sequence[Device], devices: int) -> tuple[Device, ...]:
    """Device k is of kind ``k % len(kinds)``."""
    return tuple(kinds[number % len(kinds)] for number in range(devices))


def check_roles(members: Sequence[Device]) -> None:
    """Refuse a crowd in which nobody could host, or nobody holds records.

    Raises:
        UsageError: so it is; names the switch.
    """
    for flag, words in (("hosts", "may host a slice"), ("owns", "holds records")):
        if not any(getattr(device, flag) for device in members):
            raise UsageError(
                f"crowd: none of {len(members)} devices {words} ({flag}=false for all); expected at "
                f"least one device with {flag}=true"
            )
