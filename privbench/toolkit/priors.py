"""What is known of inputs before any traffic is seen: their mean, and that images are smooth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Public

GREY = 0.5  # the middle of the range of every input


def is_image(shape: Sequence[int]) -> bool:
    """Channels first, and more than one pixel each way?"""
    return len(shape) == 3 and min(shape[1:]) > 1


def variation(x: Float[Tensor, "*n c h w"]) -> Float[Tensor, ""]:
    """Total variation, summed over images: absolute differences of neighbouring pixels.

    L. I. Rudin, S. Osher, E. Fatemi: Nonlinear Total Variation Based Noise Removal Algorithms, 1992,
    https://doi.org/10.1016/0167-2789(92)90242-F; we take its anisotropic form.
    """
    across = x.diff(dim=-1).abs().sum()
    return across + x.diff(dim=-2).abs().sum()


def variation_slope(x: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
    """A (sub)gradient of ``variation``; each image's depends on itself alone."""
    slope = torch.zeros_like(x)
    across, down = x.diff(dim=-1).sign(), x.diff(dim=-2).sign()
    slope[..., 1:] += across
    slope[..., :-1] -= across
    slope[..., 1:, :] += down
    slope[..., :-1, :] -= down
    return slope


def mean_variation_slope(x: Float[Tensor, "*n c h w"], power: int = 1) -> Float[Tensor, "*n c h w"]:
    """The gradient of the mean over neighbours across plus that over neighbours down.

    Args:
        power: of the differences, 1 or 2; either way each image's depends on itself alone.
    """
    across, down = x.diff(dim=-1), x.diff(dim=-2)
    count_across, count_down = (math.prod(each.shape[-3:]) for each in (across, down))
    if power == 1:
        across, down = across.sign() / count_across, down.sign() / count_down
    else:
        across, down = across * (2 / count_across), down * (2 / count_down)
    slope = torch.zeros_like(x)
    slope[..., 1:] += across
    slope[..., :-1] -= across
    slope[..., 1:, :] += down
    slope[..., :-1, :] -= down
    return slope


def typical(public: Public, shape: Sequence[int]) -> Tensor:
    """The median of each pixel over the auxiliary inputs, or grey where there are none.

    Where a network is blind (behind a ReLU that is 0 in all places) this guess stays, and of images
    with a background it is the background.
    """
    if public.auxiliary is not None and len(public.auxiliary):
        return public.auxiliary.x.float().median(dim=0).values
    return torch.full(tuple(shape), GREY)


def expected(public: Public, shape: Sequence[int]) -> Tensor:
    """The best guess without traffic: the mean auxiliary input, or grey where there are none."""
    if public.auxiliary is not None and len(public.auxiliary):
        return public.auxiliary.x.float().mean(dim=0)
    return torch.full(tuple(shape), GREY)
