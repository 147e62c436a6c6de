"""Deep leakage from gradients: inputs and labels together, until both gradients are equal."""

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
class Dlg(GradientSearch):
    """Makes two gradients equal, by L-BFGS over images and labels, from noise.

    L. Zhu, Z. Liu, S. Han: Deep Leakage from Gradients, NeurIPS 2019, https://arxiv.org/abs/1906.08935.

    We differ: squared differences are in units of the gradient that was seen, steps are shortened until they
    help, and images are kept within the range at the end; where an update's scale is not known (an
    optimiser other than plain SGD) directions are compared instead.

    Args:
        steps: of L-BFGS.
        memory: steps that it remembers.
        noise: standard deviation of the start, in units of the input's range.
        centred: start around the mean auxiliary input rather than 0?
        images: most that are rebuilt of one update.

    Example::

        privbench regime=fedavg_one_sample threat=server attack=dlg victims=8
    """

    source: ClassVar[str] = (
        "L. Zhu, Z. Liu, S. Han, Deep Leakage from Gradients, 2019, https://arxiv.org/abs/1906.08935"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 60})

    steps: int = 300
    memory: int = 20  # the paper's 100 gain nothing on small images
    noise: float = 1.0
    centred: bool = False
    images: int = 16  # beyond it labels and order are anyone's guess

    @property
    def setting(self) -> Setting:
        """Labels are searched for along with images."""
        return Setting(images=self.images, noise=self.noise, centred=self.centred, read=False)

    def descend(self, view: View, jobs: Sequence[Job]) -> Float[Tensor, "jobs n ..."]:
        """L-BFGS."""
        return equalled(self.steps, self.memory)(view, jobs)
