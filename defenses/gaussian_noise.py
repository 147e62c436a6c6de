"""Gaussian noise on what devices send of their samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from privbench.contract import Message, MessageDefense
from privbench.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(MessageDefense):
    """Adds independent normal noise to every number of an activation before it leaves.

    Z. He, T. Zhang, R. B. Lee: Attacking and Protecting Data Privacy in Edge-Cloud Collaborative
    Inference Systems, IEEE Internet of Things Journal 2021,
    https://doi.org/10.1109/JIOT.2020.3022358.

    We differ: the noise is also there while the model trains, not at inference alone. Activations
    are not clipped, so their sensitivity has no bound and there is no formal epsilon.

    Args:
        std: standard deviation in units of the activation itself (a ReLU layer of the digits'
            network has values of about 0 to 3).

    Raises:
        UsageError: ``std`` is negative or not finite.
    """

    kinds: ClassVar[tuple[str, ...]] = ("activation", "partial_sum")
    source: ClassVar[str] = (
        "Z. He, T. Zhang, R. B. Lee: Attacking and Protecting Data Privacy in Edge-Cloud "
        "Collaborative Inference Systems, 2021, https://doi.org/10.1109/JIOT.2020.3022358"
    )

    std: float = 0.1  # absolute

    def __post_init__(self) -> None:
        if not 0 <= self.std < float("inf"):
            raise UsageError(
                f"defense.gaussian_noise.std={self.std}; expected a finite number, 0 or more"
            )

    def send(self, message: Message, rng: torch.Generator) -> Message:
        """The message with noise on its payload; drawn on the CPU in float32, whatever the device."""
        if self.std == 0:
            return message
        noise = torch.randn(message.payload.shape, generator=rng)
        return replace(message, payload=message.payload + self.std * noise.to(message.payload))
