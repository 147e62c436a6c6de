"""A crowd that spreads log-normally around one device."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from privbench.errors import UsageError
from privbench.slicenet.crowd import Device, Sized


@dataclass(frozen=True, kw_only=True)
class LogNormal(Sized):
    """Devices whose power, memory and bandwidth are each a log-normal factor times those of one (ours).

    ``device`` is the median. Compute and speed share a factor, so do up and down; the three factors
    are independent. A larger crowd with the same seed begins with the devices of a smaller one.

    Args:
        device: the median device.
        spread: standard deviation of the natural logarithm of a factor; 0 = all alike. At 0.5 one
            device in six has less than 0.6 of the median, one in six more than 1.65 of it.
        seed: of the draws; the crowd does not change with the run's seed.

    Raises:
        UsageError: ``spread`` is negative or no number.
    """

    device: Device = field(default_factory=Device)
    spread: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.spread < float("inf"):
            raise UsageError(f"crowd.spread={self.spread}; expected 0 or more, for example 0.5")
        if self.seed < 0:
            raise UsageError(f"crowd.seed={self.seed}; expected 0 or more")
        super().__post_init__()

    def profiles(self) -> tuple[Device, ...]:
        """See ``Sized.profiles``."""
        draws = np.random.default_rng(self.seed).standard_normal((self.devices, 3))
        return tuple(
            replace(
                self.device,
                compute=self.device.compute * power,
                speed=self.device.speed * power,
                memory=self.device.memory * memory,
                up=self.device.up * band,
                down=self.device.down * band,
            )
            for power, memory, band in np.exp(self.spread * draws).tolist()
        )
