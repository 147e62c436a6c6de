"""Networks between an activation of any shape and an input of any shape, and judges of either."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from privbench.toolkit.priors import is_image

DENSE = 1024  # values of an activation up to which a linear layer may read it whole
EMBEDDING = 50  # numbers that stand for a label, as in conditional GANs
SLOPE = 0.2  # of leaky ReLUs, as DCGAN's judge has them


def decoder(
    seen: Sequence[int], shape: Sequence[int], width: int = 32, classes: int = 0
) -> nn.Module:
    """A network from an activation back to an input.

    Maps are decoded by convolutions: what unpadded convolutions cut off at the border is padded
    again, what was pooled is enlarged by two at a time. Maps of few values, and activations that are
    no maps, are read by a linear layer first. Inputs that are no images are decoded by an MLP.
    It has no norm layers: one sample is decoded alike alone and in company.

    Args:
        seen: shape of one activation, channels first.
        shape: of one input.
        width: channels of its hidden layers at full size.
        classes: number of labels where it is told them, as its second argument; 0 = it is not.

    Returns:
        ``(n, *seen)`` [and labels ``(n,)``] to ``(n, *shape)`` in [0, 1].

    Example::

        net = drawn(lambda: decoder((16, 8, 8), (1, 28, 28)), rng)
        x = net(activation)
    """
    if classes:
        return _Labelled(decoder(_labelled(seen), shape, width), seen, classes)
    return nn.Sequential(*_decoding(seen, shape, width), nn.Sigmoid())


def encoder(shape: Sequence[int], seen: Sequence[int], width: int = 32) -> nn.Module:
    """A network from an input to an activation, for whoever does not know the true one.

    Args:
        shape: of one input.
        seen: shape of one activation, channels first.
        width: channels of its first hidden layer; twice as many after each halving of the map.

    Returns:
        ``(n, *shape)`` to ``(n, *seen)``, of any sign and size.
    """
    if not is_image(shape):
        return nn.Sequential(
            *_dense(shape, width), nn.Linear(8 * width, math.prod(seen)), _To(seen)
        )
    if not is_image(seen):
        down = (*_halved(shape, width, 2), nn.Flatten())
        return nn.Sequential(
            *down,
            nn.Linear(4 * width * _quarter(shape[1]) * _quarter(shape[2]), math.prod(seen)),
            _To(seen),
        )
    times = _halvings(shape, seen)
    return nn.Sequential(
        *_halved(shape, width, times),
        nn.Conv2d(width << times, seen[0], 3, padding=1),
        _Fitted(tuple(seen[1:])),
    )


def discriminator(shape: Sequence[int], width: int = 32, classes: int = 0) -> nn.Module:
    """A judge of inputs or activations: real or made?

    Args:
        shape: of one of what it judges.
        width: channels of its first hidden layer.
        classes: number of labels where it is told them, as its second argument; 0 = it is not.

    Returns:
        ``(n, *shape)`` [and labels ``(n,)``] to logits ``(n,)``; above 0 = real.
    """
    if classes:
        return _Labelled(discriminator(_labelled(shape), width), shape, classes)
    if not is_image(shape):
        return nn.Sequential(*_dense(shape, width), nn.Linear(8 * width, 1), nn.Flatten(0))
    times = max(0, min(3, int(math.log2(min(shape[1:]))) - 1))
    height, breadth = (_after(size, times) for size in shape[1:])
    last = nn.Linear((width << times) * height * breadth, 1)
    return nn.Sequential(*_halved(shape, width, times), nn.Flatten(), last, nn.Flatten(0))


def drawn(build: Callable[[], nn.Module], rng: torch.Generator) -> nn.Module:
    """A network with weights that depend on ``rng`` alone; the global generator stays as it was."""
    seed = int(torch.randint(2**62, (), generator=rng))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class _To(nn.Unflatten):
    """Rows of numbers to tensors of a shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(1, tuple(shape))


class _Fitted(nn.Module):
    """A map cropped or padded with zeros on all sides, as unpadded convolutions crop it."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self._size = size

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c height width"]:
        sides: list[int] = []
        for wanted, there in zip(reversed(self._size), reversed(x.shape[2:]), strict=True):
            missing = wanted - there
            sides += [missing // 2, missing - missing // 2]
        return F.pad(x, sides) if any(sides) else x


class _Labelled(nn.Module):
    """A network that is told labels: one more channel of its map, or more numbers in its row."""

    def __init__(self, body: nn.Module, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self._shape = (1, *shape[1:]) if is_image(shape) else (EMBEDDING,)
        self._embedding = nn.Embedding(classes, EMBEDDING)
        self._spread = nn.Linear(EMBEDDING, math.prod(self._shape))
        self._body = body

    def forward(self, x: Float[Tensor, "n ..."], y: Int64[Tensor, " n"]) -> Tensor:
        told = self._spread(self._embedding(y)).reshape(len(x), *self._shape)
        known = x if len(self._shape) == 3 else x.flatten(1)
        return cast(Tensor, self._body(torch.cat([known, told], dim=1)))


def _labelled(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of what ``_Labelled`` hands on."""
    if is_image(shape):
        return (shape[0] + 1, *shape[1:])
    return (math.prod(shape) + EMBEDDING,)


def _decoding(seen: Sequence[int], shape: Sequence[int], width: int) -> Iterator[nn.Module]:
    if not is_image(shape):
        yield from _dense(seen, width)
        yield nn.Linear(8 * width, math.prod(shape))
        yield _To(shape)
        return
    if is_image(seen) and math.prod(seen) > DENSE:
        times = _halvings(shape, seen)
        size = tuple(_after(side, times) for side in shape[1:])
        yield _Fitted(size)
        yield nn.Conv2d(seen[0], width << times, 3, padding=1)
    else:
        times = min(2, max(0, int(math.log2(min(shape[1:]))) - 1))
        size = tuple(_after(side, times) for side in shape[1:])
        yield nn.Flatten()
        yield nn.Linear(math.prod(seen), (width << times) * size[0] * size[1])
        yield _To((width << times, *size))
    yield nn.LeakyReLU(SLOPE)
    for time in reversed(range(times)):
        yield nn.Upsample(scale_factor=2)
        yield nn.Conv2d(width << (time + 1), width << time, 3, padding=1)
        yield nn.LeakyReLU(SLOPE)
    yield _Fitted(tuple(shape[1:]))
    yield nn.Conv2d(width, width, 3, padding=1)
    yield nn.LeakyReLU(SLOPE)
    yield nn.Conv2d(width, shape[0], 3, padding=1)


def _dense(shape: Sequence[int], width: int) -> tuple[nn.Module, ...]:
    """An MLP up to its last hidden layer, of ``8 * width`` values."""
    return (
        nn.Flatten(),
        nn.Linear(math.prod(shape), 8 * width),
        nn.LeakyReLU(SLOPE),
        nn.Linear(8 * width, 8 * width),
        nn.LeakyReLU(SLOPE),
    )


def _halved(shape: Sequence[int], width: int, times: int) -> Iterator[nn.Module]:
    """Convolutions that halve a map some times and double its channels each time."""
    yield nn.Conv2d(shape[0], width, 3, padding=1)
    yield nn.LeakyReLU(SLOPE)
    for time in range(times):
        yield nn.Conv2d(width << time, width << (time + 1), 3, stride=2, padding=1)
        yield nn.LeakyReLU(SLOPE)


def _halvings(shape: Sequence[int], seen: Sequence[int]) -> int:
    """How often an input was halved on the way to a map that is no larger than what is left."""
    times = 0
    while all(
        _after(side, times + 1) >= there for side, there in zip(shape[1:], seen[1:], strict=True)
    ):
        times += 1
    return min(times, 3)


def _after(size: int, times: int) -> int:
    """Pixels that are left of ``size`` after it was halved, rounding up."""
    for _ in range(times):
        size = -(-size // 2)
    return size


def _quarter(size: int) -> int:
    return _after(size, 2)
