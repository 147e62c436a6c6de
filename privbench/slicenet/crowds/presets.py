"""Named kinds of devices. *Synthetic*: each number is derived from a public one, or a guess and said so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import MappingProxyType

from privbench.errors import UnknownName, UsageError
from privbench.slicenet.crowd import Device, Sized, in_turn

MOBILE = Device(up=1.3e6, down=5.2e6, latency=0.028, energy_per_byte=3e-6)
"""Median mobile line [S]: 10.42 Mbit/s up, 41.54 down, 28 ms; energy [H]."""

FIXED = Device(up=4.4e6, down=9.9e6, latency=0.009, energy_per_byte=1e-7)
"""Median fixed line [S]: 34.92 Mbit/s up, 79 down, 9 ms; energy: round guess for Wi-Fi of today."""

KINDS: Mapping[str, Device] = MappingProxyType(
    {
        "watch": replace(
            MOBILE,
            name="watch",
            speed=6e8,  # [L] Raspberry Pi Zero 2 W, four A53 at 1 GHz: 0.37; a watch's run at 1.7 GHz
            compute=6e7,  # 0.1 s
            memory=32e6,  # guess
            up=0.65e6,  # guess: half a phone's
            down=2.6e6,
            energy_per_flop=5.7e-9,  # [L] 2.1 W for 0.37 GFLOP/s
        ),
        "phone_low": replace(
            MOBILE,
            name="phone_low",
            speed=5.6e9,  # [L] RK3566, four A55: 5.604
            compute=5.6e8,  # 0.1 s
            memory=128e6,  # guess
            up=0.75e6,  # [H] median LTE of 2012: 6 Mbit/s
            down=1.6e6,  # [H] 13 Mbit/s
            energy_per_flop=7.1e-10,  # [L] 4.0 W
        ),
        "phone_mid": replace(
            MOBILE,
            name="phone_mid",
            speed=2.5e10,  # [L] RK3588, four A76 and four A55: 51.4; half, for want of a fan (guess)
            compute=2.5e9,  # 0.1 s
            memory=256e6,  # guess
            energy_per_flop=2.3e-10,  # [L] 12 W
        ),
        "phone_high": replace(
            MOBILE,
            name="phone_high",
            speed=5e10,  # [L] M2 laptop: 104.7; half, for half the fast cores (guess)
            compute=5e9,  # 0.1 s
            memory=512e6,  # guess
            up=2.6e6,  # [5G] median 21.08 Mbit/s
            down=2.1e7,  # [5G] 166.13 Mbit/s
            energy_per_flop=1.3e-10,  # [L] M4: 39.6 W for 299.9 GFLOP/s
            energy_per_byte=1e-6,  # guess: a third of [H]
        ),
        "raspberry_pi_4": replace(
            FIXED,
            name="raspberry_pi_4",
            speed=1.2e10,  # [L] 11.889
            compute=6e9,  # 0.5 s
            memory=1e9,  # a quarter of 4 GB
            energy_per_flop=6.1e-10,  # [L] 7.2 W
        ),
        "raspberry_pi_5": replace(
            FIXED,
            name="raspberry_pi_5",
            speed=3e10,  # [L] 30.249
            compute=1.5e10,  # 0.5 s
            memory=2e9,  # a quarter of 8 GB
            energy_per_flop=3.6e-10,  # [L] 11 W
        ),
        "jetson_nano": replace(
            FIXED,
            name="jetson_nano",
            speed=1.2e11,  # [J] 128 cores x 2 x 0.921 GHz = 236; half of the peak (guess)
            compute=6e10,  # 0.5 s
            memory=1e9,  # a quarter of 4 GB
            energy_per_flop=8.3e-11,  # [J] 10 W
        ),
        "laptop": replace(
            FIXED,
            name="laptop",
            speed=1e11,  # [L] M2 laptop: 104.68
            compute=5e10,  # 0.5 s
            memory=2e9,  # a quarter of 8 GB
            energy_per_flop=2.5e-10,  # [L] M1 Max: 66 W for 264.3 GFLOP/s
        ),
        "microserver": replace(
            FIXED,
            name="microserver",
            speed=3.3e11,  # [L] Ampere Altra Q32-17: 332.07
            compute=3.3e11,  # 1 s
            memory=1.6e10,  # a quarter of 64 GB (guess)
            up=1.25e8,  # guess: 1 Gbit/s
            down=1.25e8,
            latency=0.002,  # guess
            energy_per_flop=3e-10,  # [L] 100 W
            energy_per_byte=1e-8,  # guess: wired
        ),
    }
)
"""Kinds by name; letters as in ``Presets``, GFLOP/s before them."""


@dataclass(frozen=True, kw_only=True)
class Presets(Sized):
    """Devices of named kinds, dealt in turn: device k is of kind ``mix[k % len(mix)]``.

    *Synthetic*: no crowd of just these devices was measured. Sources:

    - [L] J. Geerling: top500-benchmark, High Performance Linpack and watts at the plug,
      https://github.com/geerlingguy/top500-benchmark. In double precision: training in single
      precision may go twice as fast, and rarely gets half of what dense products get.
    - [S] Ookla Speedtest, medians of the first quarter of 2023, as reported by
      https://www.neowin.net/news/ookla-speed-test-report-these-countries-have-the-fastest-internet-in-2023-so-far/;
      [5G] those of the third quarter of 2021 over 5G: I. McKetta: Growing and Slowing: The State of
      5G Worldwide in 2021, Ookla, 20 December 2021.
    - [H] J. Huang, F. Qian, A. Gerber, Z. M. Mao, S. Sen, O. Spatscheck: A Close Examination of
      Performance and Power Characteristics of 4G LTE Networks, 2012,
      https://doi.org/10.1145/2307636.2307658: median rates; 3e-6 J a byte is the mean of both
      directions under their power model at these rates, rounded.
    - [J] NVIDIA Jetson Nano: 128 cores at 921 MHz, 4 GB, 10 W,
      https://developer.nvidia.com/embedded/jetson-nano.

    The arithmetic alone would need about 2e-12 J a FLOP (M. Horowitz: Computing's energy problem,
    2014, https://doi.org/10.1109/ISSCC.2014.6757323); what is counted here is the whole device.
    Budgets are the part of a second that a step may take (``compute`` over ``speed``): guesses.

    Args:
        mix: names of kinds; one that stands there twice is twice as frequent.

    Raises:
        UnknownName: there is no such kind; the message lists them.
        UsageError: no kind.
    """

    mix: tuple[str, ...] = ("phone_mid", "phone_low", "phone_mid", "phone_high")

    def __post_init__(self) -> None:
        if not self.mix:
            raise UsageError("crowd.mix is empty; expected names of kinds, for example [phone_mid]")
        for name in self.mix:
            if name not in KINDS:
                raise _unknown(name)
        super().__post_init__()

    def profiles(self) -> tuple[Device, ...]:
        """See ``Sized.profiles``."""
        return in_turn([KINDS[name] for name in self.mix], self.devices)


def _unknown(name: str) -> UnknownName:
    near = get_close_matches(str(name), KINDS, n=1)
    meant = f"; did you mean '{near[0]}'?" if near else ""
    return UnknownName(f"crowd.mix: there is no kind '{name}'{meant} There are {', '.join(KINDS)}")
