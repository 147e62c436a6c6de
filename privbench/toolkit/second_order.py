"""Gradients made equal by a method of second order: smooth networks give images away to the last digit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import View
from privbench.toolkit.inverting import Descent, Job, matcher_of, starts_of
from privbench.toolkit.matching import cosine, relative
from privbench.toolkit.priors import is_image, variation_slope
from privbench.toolkit.secants import Valued, lowest


def equalled(steps: int, memory: int, smooth: float = 0.0) -> Descent:
    """A descent by L-BFGS over images, and over labels where they are not known.

    Args:
        smooth: weight of the mean total variation a pixel.
    """

    def descend(view: View, jobs: Sequence[Job]) -> Float[Tensor, "jobs n ..."]:
        matcher = matcher_of(view, jobs, relative if jobs[0].known.mean else cosine)
        x, labels = starts_of(jobs, view.device)
        soft, shape, size = jobs[0].labels is None, x.shape, x[0].numel()
        if soft:
            drawn = [
                torch.randn(labels.shape[1:], generator=torch.Generator().manual_seed(job.seed))
                for job in jobs
            ]
            labels = torch.stack(drawn).to(labels)
        prior = smooth / x[0, 0].numel() if is_image(shape[2:]) else 0.0

        def evaluate(flat: Tensor) -> Valued:
            images = flat[:, :size].reshape(shape)
            logits = flat[:, size:].reshape(labels.shape) if soft else labels
            pull = matcher.pull(images, logits, soft)
            value, slope = pull.value, pull.x
            if prior:
                value = value + prior * _variation(images)
                slope = slope + prior * variation_slope(images)
            slopes = [slope.flatten(1)]
            if pull.logits is not None:
                slopes.append(pull.logits.flatten(1))
            return Valued(value, torch.cat(slopes, dim=1))

        start = [x.flatten(1), labels.flatten(1)] if soft else [x.flatten(1)]
        found = lowest(evaluate, torch.cat(start, dim=1), steps, memory)
        return found[:, :size].reshape(shape).nan_to_num(0.5).clamp(0, 1)

    return descend


def _variation(x: Float[Tensor, "jobs n c h w"]) -> Float[Tensor, " jobs"]:
    across, down = x.diff(dim=-1).abs(), x.diff(dim=-2).abs()
    return across.flatten(1).sum(dim=1) + down.flatten(1).sum(dim=1)
