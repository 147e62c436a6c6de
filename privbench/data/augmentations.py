"""Copies of images that look like other images of the same thing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Augmentation
from privbench.errors import UsageError

KRIZHEVSKY = (
    "A. Krizhevsky, I. Sutskever, G. E. Hinton: ImageNet Classification with Deep Convolutional Neural "
    "Networks, 2012, https://doi.org/10.1145/3065386"
)

Images = Float[Tensor, "n c h w"]


@dataclass(frozen=True, kw_only=True)
class Mirrored(Augmentation):
    """Each image, mirrored left to right or not, by a fair coin.

    Example::

        privbench regime=centralized augmentation=mirrored attack=lira attack.queries=2
    """

    source: ClassVar[str] = KRIZHEVSKY

    def __call__(self, x: Images, rng: torch.Generator) -> Images:
        """See ``Augmentation``.

        Raises:
            UsageError: these are no images.
        """
        _check_images(x, "mirrored")
        return _tossed(x, rng)

    def copies(self, x: Images) -> Iterator[Images]:
        """As it is, and mirrored."""
        _check_images(x, "mirrored")
        yield from (x, x.flip(-1))


@dataclass(frozen=True, kw_only=True)
class Moved(Augmentation):
    """Each image, shifted by a few pixels down and to the right, as many either way as not, and mirrored
    or not.

    We differ: what comes in at the border repeats it, where the paper cuts from a larger image.

    Args:
        pixels: furthest shift; each from ``-pixels`` to ``pixels`` is as likely.
        mirrored: toss the coin too.

    Example::

        privbench regime=centralized augmentation=moved augmentation.mirrored=false attack=lira
    """

    source: ClassVar[str] = KRIZHEVSKY

    pixels: int = 1  # suits images of 8 x 8; 4 is usual for 32 x 32
    mirrored: bool = True

    def __post_init__(self) -> None:
        if type(self.pixels) is not int or self.pixels < 1:
            raise UsageError(
                f"augmentation.pixels={self.pixels}; expected a whole number of at least 1 pixel"
            )

    def __call__(self, x: Images, rng: torch.Generator) -> Images:
        """See ``Augmentation``.

        Raises:
            UsageError: these are no images, or smaller than the shift.
        """
        self._check(x)
        down, right = torch.randint(-self.pixels, self.pixels + 1, (2, len(x)), generator=rng)
        found = _shifted(x, down, right)
        return _tossed(found, rng) if self.mirrored else found

    def copies(self, x: Images) -> Iterator[Images]:
        """Each shift, as it is and mirrored."""
        self._check(x)
        way = range(-self.pixels, self.pixels + 1)
        for down, right in product(way, way):
            found = _shifted(x, *(torch.full((len(x),), by) for by in (down, right)))
            yield from (found, found.flip(-1)) if self.mirrored else (found,)

    def _check(self, x: Tensor) -> None:
        _check_images(x, "moved")
        if self.pixels >= min(x.shape[2:]):
            raise UsageError(
                f"augmentation.pixels={self.pixels} moves images of {x.shape[2]} x {x.shape[3]} pixels "
                f"out of sight; expected at most {min(x.shape[2:]) - 1}"
            )


def _tossed(x: Images, rng: torch.Generator) -> Images:
    """Mirrored by a coin each."""
    coins = torch.rand(len(x), generator=rng) < 0.5
    return torch.where(coins.to(x.device)[:, None, None, None], x.flip(-1), x)


def _shifted(x: Images, down: Int64[Tensor, " n"], right: Int64[Tensor, " n"]) -> Images:
    """Each image by its own number of pixels; the border is repeated."""
    height, width = x.shape[2:]
    rows = (torch.arange(height) - down[:, None]).clamp(0, height - 1).to(x.device)
    columns = (torch.arange(width) - right[:, None]).clamp(0, width - 1).to(x.device)
    number = torch.arange(len(x), device=x.device)[:, None, None]
    # channels come last where a slice stands between indices
    return x[number, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()


def _check_images(x: Tensor, name: str) -> None:
    if x.ndim != 4:
        raise UsageError(
            f"augmentation={name} takes images (channels, height, width), and records of shape "
            f"{tuple(x.shape[1:])} are none; type augmentation=none"
        )
