"""Few bits for each number that is sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from privbench.contract import ROW_KINDS, Message, MessageDefense
from privbench.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Quantize(MessageDefense):
    """Rounds every number to one of a few, evenly spaced, up or down by chance so that the mean stays.

    D. Alistarh, D. Grubic, J. Li, R. Tomioka, M. Vojnovic: QSGD: Communication-Efficient SGD via Gradient
    Quantization and Encoding, NeurIPS 2017, https://arxiv.org/abs/1610.02132.

    We differ: the scale is the largest number, not the norm; of a message with rows it is each row's own,
    over the whole layer, as if the devices of a layer agreed on it. Bytes are counted as if nothing were
    rounded.

    Args:
        bits: of a number, its sign included; 1 = its sign alone would be kept, so at least 2.

    Raises:
        UsageError: ``bits`` is no whole number from 2 to 16.
    """

    kinds: ClassVar[tuple[str, ...]] = (
        "activation",
        "partial_sum",
        "gradient",
        "update",
        "stem_gradient",
        "tail_gradient",
    )
    source: ClassVar[str] = (
        "D. Alistarh, D. Grubic, J. Li, R. Tomioka, M. Vojnovic: QSGD: Communication-Efficient SGD via "
        "Gradient Quantization and Encoding, 2017, https://arxiv.org/abs/1610.02132"
    )

    bits: int = 4

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 16:
            raise UsageError(
                f"defense.quantize.bits={self.bits}; expected a whole number from 2 to 16"
            )

    def send(self, message: Message, rng: torch.Generator) -> Message:
        """The message with rounded numbers; chance is drawn on the CPU in float32, whatever the device."""
        found = message.payload
        if not found.numel():
            return message
        every = tuple(range(1, found.ndim)) if message.kind in ROW_KINDS else ()
        step = found.abs().amax(dim=every, keepdim=True).double() / (2 ** (self.bits - 1) - 1)
        up = torch.rand(found.shape, generator=rng).to(found.device)
        whole = (found.double() / step.clamp(min=1e-300) + up).floor()
        return replace(message, payload=(whole * step).to(found))
