"""Networks that undo convolutions: from an activation of any shape back to an input of any shape."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from privbench.toolkit.priors import is_image
from privbench.toolkit.ridge import fit_ridge

HIDDEN = 512  # units of the hidden layer where there are no maps
PLACES = 20_000  # most patches that the linear path is fitted on
COLUMNS = 1600  # most numbers a patch for which it is


class Transposed(nn.Module):
    """A linear path from an activation to an input, and beside it one with hidden layers.

    Maps are enlarged: by what unpadded convolutions cut off first, then by two at a time. What is no
    map, or is decoded to no image, goes through linear layers. Whatever it is shown, it starts as
    ``mean``; ``fit`` puts the best linear map in its place, and training does the rest.

    Args:
        seen: shape of one activation, channels first.
        mean: of the inputs.
        width: channels of the last hidden layer; twice as many before each doubling of the map.

    Example::

        Transposed((16, 8, 8), torch.zeros(1, 28, 28), 16)(torch.rand(5, 16, 8, 8)).shape  # (5, 1, 28, 28)
    """

    def __init__(self, seen: Sequence[int], mean: Tensor, width: int) -> None:
        super().__init__()
        self.base: Tensor
        self.register_buffer("base", mean.clone())
        shape = tuple(mean.shape)
        if is_image(seen) and is_image(shape):
            doublings = _doublings(seen, shape)
            patches: _Patches | _Rows = _Patches(seen, shape, 1 << doublings)
            bent = list(_bent(seen, shape, doublings, width))
        else:
            values, wanted = math.prod(seen), math.prod(shape)
            patches = _Rows(shape)
            bent = [nn.Flatten(), nn.Linear(values, HIDDEN), nn.ReLU()]
            bent += [nn.Linear(HIDDEN, wanted), nn.Unflatten(1, shape)]
        self._patches = patches
        self.straight = nn.Linear(*patches.sizes(seen))
        self.bent = nn.Sequential(*bent)
        last = next(part for part in reversed(bent) if isinstance(part, nn.Linear | nn.Conv2d))
        for parameter in (*self.straight.parameters(), *last.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, seen: Float[Tensor, "n units ..."]) -> Float[Tensor, "n ..."]:
        """Inputs; what lies outside [0, 1] is for the caller to clip."""
        straight = self._patches.whole(self.straight(self._patches.cut(seen)))
        return self.base + straight + _fitted(self.bent(seen), self.base.shape)

    def fit(
        self, seen: Float[Tensor, "n units ..."], x: Float[Tensor, "n ..."], rng: torch.Generator
    ) -> None:
        """Put the best linear map, in the least-squares sense, in the place of the mean.

        Args:
            rng: chooses the patches that it is fitted on, where there are many.
        """
        if self.straight.in_features > COLUMNS:
            return
        places = self._patches.tiles(x[:1]).shape[1]
        inputs = torch.randperm(len(x), generator=rng)[: max(2, 4 * PLACES // places)].to(x.device)
        features = self._patches.cut(seen[inputs]).flatten(0, -2)
        targets = self._patches.tiles(x[inputs]).flatten(0, -2)
        chosen = torch.randperm(len(features), generator=rng)[:PLACES].to(features.device)
        found = fit_ridge(features[chosen], targets[chosen])
        matrix = found.matrix / found.scale[:, None]
        with torch.no_grad():
            self.straight.weight.copy_(matrix.T)
            self.straight.bias.copy_(found.offset - found.centre @ matrix)
            self.base.zero_()


class _Patches:
    """Patches of a map, and the tiles of the input that each is decoded to.

    Args:
        stride: pixels a side of a tile.
    """

    def __init__(self, seen: Sequence[int], shape: Sequence[int], stride: int) -> None:
        self._stride, self._shape = stride, tuple(shape)
        self._reach = [
            max(-(-(side - (there - 1) * stride) // stride), -(-(stride + 2) // stride))
            for side, there in zip(shape[1:], seen[1:], strict=True)
        ]
        self._grid = [there + r - 1 for there, r in zip(seen[1:], self._reach, strict=True)]

    def sizes(self, seen: Sequence[int]) -> tuple[int, int]:
        """Numbers of a patch and of a tile."""
        return seen[0] * math.prod(self._reach), self._shape[0] * self._stride**2

    def cut(self, seen: Float[Tensor, "n c h w"]) -> Float[Tensor, "n places patch"]:
        """The patch before each tile."""
        margins = [r - 1 for r in self._reach]
        padded = F.pad(seen, [margins[1], margins[1], margins[0], margins[0]])
        return F.unfold(padded, tuple(self._reach)).transpose(1, 2)

    def whole(self, tiles: Float[Tensor, "n places tile"]) -> Float[Tensor, "n c height width"]:
        """The image that tiles make, cropped in the middle."""
        grid = tiles.transpose(1, 2).reshape(len(tiles), -1, *self._grid)
        return _fitted(F.pixel_shuffle(grid, self._stride), self._shape)

    def tiles(self, x: Float[Tensor, "n c height width"]) -> Float[Tensor, "n places tile"]:
        """The tiles of an image; what lies beyond its border continues it."""
        sides: list[int] = []
        for size, there in zip(reversed(self._grid), reversed(x.shape[2:]), strict=True):
            beyond = size * self._stride - there
            sides += [beyond // 2, beyond - beyond // 2]
        padded = F.pad(x, sides, mode="replicate") if min(sides) >= 0 else F.pad(x, sides)
        return F.pixel_unshuffle(padded, self._stride).flatten(2).transpose(1, 2)


class _Rows:
    """What is no map: one patch, one tile."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)

    def sizes(self, seen: Sequence[int]) -> tuple[int, int]:
        """Numbers of an activation and of an input."""
        return math.prod(seen), math.prod(self._shape)

    def cut(self, seen: Float[Tensor, "n ..."]) -> Float[Tensor, "n 1 values"]:
        """All of it."""
        return seen.flatten(1)[:, None]

    def whole(self, tiles: Float[Tensor, "n 1 values"]) -> Float[Tensor, "n ..."]:
        """The input."""
        return tiles.reshape(len(tiles), *self._shape)

    def tiles(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n 1 values"]:
        """The input as one tile."""
        return x.flatten(1)[:, None]


def _doublings(seen: Sequence[int], shape: Sequence[int]) -> int:
    """How often a map has to be doubled before it is as large as the input, or nearly."""
    times = (math.log2(side / there) for side, there in zip(shape[1:], seen[1:], strict=True))
    return max(0, math.floor(min(times)))


def _bent(
    seen: Sequence[int], shape: Sequence[int], doublings: int, width: int
) -> Iterator[nn.Module]:
    kernels, paddings = [], []
    for side, there in zip(shape[1:], seen[1:], strict=True):
        kernel = max((side >> doublings) - there, 0) + 1
        paddings.append(1 if kernel < 3 else 0)
        kernels.append(kernel + 2 * paddings[-1])
    yield nn.ConvTranspose2d(
        seen[0], width << doublings, (kernels[0], kernels[1]), padding=(paddings[0], paddings[1])
    )
    yield nn.ReLU()
    for time in reversed(range(doublings)):
        yield nn.ConvTranspose2d(width << (time + 1), width << time, 4, stride=2, padding=1)
        yield nn.ReLU()
    yield nn.Conv2d(width, shape[0], 3, padding=1)


def _fitted(x: Float[Tensor, "n ..."], shape: Sequence[int]) -> Float[Tensor, "n ..."]:
    """A map cropped, or padded with zeros, on all sides."""
    sides: list[int] = []
    for wanted, there in zip(reversed(shape[1:]), reversed(x.shape[2:]), strict=True):
        missing = wanted - there
        sides += [missing // 2, missing - missing // 2]
    return F.pad(x, sides) if any(sides) else x
