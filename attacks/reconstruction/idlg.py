"""Improved deep leakage: the label is read off the gradient, the image searched for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from privbench.contract import View
from privbench.toolkit.inverting import Job, Setting
from privbench.toolkit.searching import GradientSearch
from privbench.toolkit.second_order import equalled


@dataclass(frozen=True, kw_only=True)
class Idlg(GradientSearch):
    """Reads the label off the sign of the last layer's gradient, then makes two gradients equal.

    B. Zhao, K. R. Mopuri, H. Bilen: iDLG: Improved Deep Leakage from Gradients, 2020,
    https://arxiv.org/abs/2001.02610.

    We differ: labels of batches are counted (toolkit.labels), squared differences are in units of the
    gradient that was seen, steps are shortened until they help, and where an update's scale is not known
    directions are compared instead.

    Args:
        steps: of L-BFGS.
        memory: steps that it remembers.
        smooth: weight of the mean total variation a pixel, against the share of the gradient that differs.
        noise: standard deviation of the start, in units of the input's range.
        centred: start around the mean auxiliary input rather than 0?
        images: most that are rebuilt of one update.

    Example::

        privbench regime=fedavg_one_sample threat=server attack=idlg victims=8
    """

    source: ClassVar[str] = (
        "B. Zhao, K. R. Mopuri, H. Bilen, iDLG: Improved Deep Leakage from Gradients, 2020, "
        "https://arxiv.org/abs/2001.02610"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 60})

    steps: int = 300
    memory: int = 20  # the paper's 100 gain nothing on small images
    smooth: float = 0.0
    noise: float = 1.0
    centred: bool = False
    images: int = 16  # beyond it labels and order are anyone's guess

    @property
    def setting(self) -> Setting:
        """Labels are read off."""
        return Setting(images=self.images, noise=self.noise, centred=self.centred, read=True)

    def descend(self, view: View, jobs: Sequence[Job]) -> Float[Tensor, "jobs n ..."]:
        """L-BFGS."""
        return equalled(self.steps, self.memory, self.smooth)(view, jobs)
