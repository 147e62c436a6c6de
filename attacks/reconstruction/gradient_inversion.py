"""Invert gradients: which inputs would have moved the network this way?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from privbench.contract import View, counted
from privbench.toolkit.inverting import Job, Setting, matcher_of, starts_of
from privbench.toolkit.matching import Adam, cosine
from privbench.toolkit.priors import is_image, variation_slope
from privbench.toolkit.searching import GradientSearch


@dataclass(frozen=True, kw_only=True)
class GradientInversion(GradientSearch):
    """Matches the direction of a gradient, with a smoothness prior and signed Adam.

    J. Geiping, H. Bauermeister, H. Dröge, M. Moeller: Inverting Gradients - How easy is it to break
    privacy in federated learning?, NeurIPS 2020, https://arxiv.org/abs/2003.14053.

    We differ: far fewer steps and no restarts, a start near the mean auxiliary input instead of
    noise, and the update of several local steps is matched by one gradient, not by unrolling them.
    Labels are read off the last bias where that works (toolkit.labels), else optimised as
    probabilities (L. Zhu, Z. Liu, S. Han: Deep Leakage from Gradients, 2019,
    https://arxiv.org/abs/1906.08935). What is inverted, and under which weights, depends on the
    seat: see ``toolkit.updates.observed``. Rows of one update come back in unknown order.

    Args:
        steps: of Adam; its rate falls tenfold after 3/8, 5/8 and 7/8 of them.
        rate: at the start, in units of the input's range.
        smooth: weight of the mean total variation a pixel beside the cosine distance.
        noise: standard deviation of the start around the mean input; tells images of a group apart.
        images: most that are rebuilt of one update; more rows than that are stood for by these.

    Example::

        privbench regime=fedavg_one_sample threat=server attack=gradient_inversion victims=8
    """

    source: ClassVar[str] = (
        "J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, Inverting Gradients - How easy is it to "
        "break privacy in federated learning?, 2020, https://arxiv.org/abs/2003.14053"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 60})

    steps: int = 400  # the paper's 4,800 gain little on small images
    rate: float = 0.1
    smooth: float = 1e-4  # on auxiliary digits, more of it blurs and none suits batches worse
    noise: float = 0.02
    images: int = 64

    @property
    def setting(self) -> Setting:
        """From the mean auxiliary input on."""
        return Setting(images=self.images, noise=self.noise)

    def descend(self, view: View, jobs: Sequence[Job]) -> Float[Tensor, "jobs n ..."]:
        """Adam on the signs of slopes; jobs do not touch each other."""
        matcher = matcher_of(view, jobs, cosine)
        x, labels = starts_of(jobs, view.device)
        soft = jobs[0].labels is None
        images, pixels = is_image(x.shape[2:]), x[0, 0].numel()
        adam_x, adam_labels = Adam(x), Adam(labels)
        for step in counted(range(self.steps)):
            rate = self.rate * 0.1 ** sum(step >= self.steps * k / 8 for k in (3, 5, 7))
            pull = matcher.pull(x, labels, soft)
            slope = pull.x
            if images:
                slope = slope + self.smooth / pixels * variation_slope(x)
            x = (x - rate * adam_x.direction(slope.sign())).clamp_(0, 1)
            if pull.logits is not None:
                labels = labels - rate * adam_labels.direction(pull.logits)
        return x
