"""Invert gradients of batches: several searches that agree, and inner statistics that are likely."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import View, counted
from privbench.toolkit.inverting import Job, Setting, matcher_of, starts_of
from privbench.toolkit.matching import Adam, cosine, relative
from privbench.toolkit.priors import is_image, variation_slope
from privbench.toolkit.searching import GradientSearch

WARM = 0.1  # share of the steps in which the rate rises; then it falls as a cosine


@dataclass(frozen=True, kw_only=True)
class GradInversion(GradientSearch):
    """Matches gradients by squared differences, from several seeds that are drawn to their mean.

    H. Yin, A. Mallya, A. Vahdat, J. M. Alvarez, J. Kautz, P. Molchanov: See through Gradients: Image Batch
    Recovery via GradInversion, CVPR 2021, https://arxiv.org/abs/2104.07586.

    We differ: squared differences are in units of the gradient that was seen, the seeds' mean is taken
    without registering images first, nothing is added to slopes as noise, labels are counted by
    ``toolkit.labels`` rather than by least entries, and a net without batch norm has no such prior.

    Args:
        steps: of Adam.
        rate: at its highest, in units of the input's range.
        seeds: searches of each update; the one that matches best is the answer.
        smooth: weight of the mean total variation a pixel.
        small: weight of the mean square of a value.
        agree: weight of the mean squared distance from the seeds' mean.
        statistics: weight of the squared distance of batch norms' inputs from their running means and
            variances.
        noise: standard deviation of the starts around the mean auxiliary input.
        images: most that are rebuilt of one update.

    Example::

        privbench regime=fedavg threat=server attack=grad_inversion victims=8
    """

    source: ClassVar[str] = (
        "H. Yin, A. Mallya, A. Vahdat, J. M. Alvarez, J. Kautz, P. Molchanov, See through Gradients: Image "
        "Batch Recovery via GradInversion, 2021, https://arxiv.org/abs/2104.07586"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 80, "seeds": 2})

    steps: int = 400  # the paper's 20,000 are for 224 pixels a side
    rate: float = 0.05  # the paper's 0.1 is in units of a normalised input
    seeds: int = 3  # the paper's 8 gain little here
    smooth: float = 1e-4
    small: float = 1e-6
    agree: float = 1e-2
    statistics: float = 0.1
    noise: float = 0.1
    images: int = 64

    @property
    def setting(self) -> Setting:
        """From the mean auxiliary input on; what tells seeds apart is added later."""
        return Setting(images=self.images, noise=self.noise)

    def descend(self, view: View, jobs: Sequence[Job]) -> Float[Tensor, "jobs n ..."]:
        """Adam, all seeds at once; of each update's seeds the one that matched best."""
        copies = [job for job in jobs for _ in range(self.seeds)]
        matcher = matcher_of(view, copies, relative if jobs[0].known.mean else cosine)
        x, labels = starts_of(copies, view.device)
        x = self._spread(x, jobs)
        unlikely = _unlikely(view, copies)
        soft = jobs[0].labels is None
        adam_x, adam_labels = Adam(x), Adam(labels)
        best, least = x, torch.full((len(x),), torch.inf, device=view.device)
        for step in counted(range(self.steps)):
            pull = matcher.pull(x, labels, soft)
            better = pull.value < least
            best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), x, best)
            least = torch.where(better, pull.value, least)
            slope = pull.x + self._prior(x)
            if unlikely is not None:
                slope = slope + self.statistics * unlikely(x)
            rate = self.rate * _rate(step / self.steps)
            x = (x - rate * adam_x.direction(slope)).clamp_(0, 1)
            if pull.logits is not None:
                labels = labels - rate * adam_labels.direction(pull.logits)
        chosen = least.view(len(jobs), self.seeds).argmin(dim=1)
        return best.unflatten(0, (len(jobs), -1))[torch.arange(len(jobs)), chosen]

    def _spread(self, x: Tensor, jobs: Sequence[Job]) -> Tensor:
        """Starts of all seeds."""
        noise = [
            torch.randn(self.seeds, *x.shape[1:], generator=torch.Generator().manual_seed(job.seed))
            for job in jobs
        ]
        return (x + self.noise * torch.cat(noise).to(x)).clamp(0, 1)

    def _prior(self, x: Float[Tensor, "copies n ..."]) -> Tensor:
        """Slope of what is known of images, and of the seeds' disagreement."""
        pixels = x[0, 0].numel()
        by_job = x.unflatten(0, (-1, self.seeds))
        apart = (by_job - by_job.mean(dim=1, keepdim=True)).flatten(0, 1)
        slope = 2 / pixels * (self.small * x + self.agree * apart)
        if is_image(x.shape[2:]):
            slope = slope + self.smooth / pixels * variation_slope(x)
        return slope


def _rate(done: float) -> float:
    """Share of the highest rate."""
    if done < WARM:
        return (done + 0.01) / (WARM + 0.01)
    left = torch.tensor((done - WARM) / (1 - WARM) * torch.pi)
    return float(0.5 + 0.5 * left.cos())


def _unlikely(view: View, copies: Sequence[Job]) -> Callable[[Tensor], Tensor] | None:
    """Slope of how far statistics before batch norms are from their running ones; None = no such layer."""
    module = view.topology.net.module().to(view.device)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return None
    far: list[Tensor] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        seen = inputs[0].transpose(0, 1).flatten(1)
        held = dict(layer.named_buffers())
        mean, variance = seen.mean(dim=1), seen.var(dim=1, unbiased=False)
        far.append((mean - held["running_mean"]).square().mean())
        far.append((variance - held["running_var"]).square().mean())

    for norm in norms:
        norm.register_forward_hook(note)

    def slope(x: Tensor) -> Tensor:
        slopes = []
        for job, images in zip(copies, x, strict=True):
            module.load_state_dict({name: t.to(x.device) for name, t in job.known.weights.items()})
            far.clear()
            leaf = images[: len(job.rows)].detach().requires_grad_()
            module(leaf)
            (found,) = torch.autograd.grad(torch.stack(far).sum(), leaf)
            slopes.append(torch.cat([found, torch.zeros_like(images[len(job.rows) :])]))
        return torch.stack(slopes)

    return slope
