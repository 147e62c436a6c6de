"""How much faster gradients of 64 victims are inverted together than one after another.

``python benchmarks/gradients.py``: the sigmoid LeNet (Zhu) on CIFAR-sized images, one sample an update,
one thread, in processor time, which on a quiet machine is time. The sequential reference is the loop that
anyone would write: plain autograd, differentiated twice, the same objective, Adam on signs. All roads are
timed in turn, several times; ratios are those of neighbours in time, and the median is reported. That the
images are equally good is measured over a whole descent of a few victims.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from figure import Figure
from torch import Tensor
from torch.nn import functional as F

from privbench.models.lenet_zhu import LeNetZhu
from privbench.toolkit.matching import Adam, Matcher, Problem, cosine
from privbench.toolkit.priors import variation_slope

VICTIMS, PLAIN_VICTIMS = 64, 8
SHAPE = (3, 32, 32)
SMOOTH = 1e-4
ROUNDS, STEPS, WHOLE = 7, 6, 300


@dataclass(frozen=True)
class Speed:
    """Times of one run, a victim and step."""

    plain: float  # seconds
    together: float
    alone: float
    together_faster: float  # median of ratios
    alone_faster: float
    plain_psnr: float  # dB, mean over the first victims
    together_psnr: float


def measure() -> Speed:
    """Time all roads in turns, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured()
    finally:
        torch.set_num_threads(before)


def figures() -> tuple[Figure, ...]:
    """Rows of the table."""
    speed = measure()
    apart = abs(speed.together_psnr - speed.plain_psnr)
    times = f"{1e3 * speed.plain:.1f} ms a victim and step one after another"
    return (
        Figure(
            what=f"gradient_inversion, LeNet (Zhu): {VICTIMS} victims together, times less per image",
            asked="at least 3; aim 5",
            value=speed.together_faster,
            unit="times",
            met=speed.together_faster >= 3,
            note=f"{times}, {1e3 * speed.together:.2f} ms together; medians of {ROUNDS}",
        ),
        Figure(
            what="the same: PSNR together less PSNR one after another",
            asked="equal within 0.3 dB",
            value=speed.together_psnr - speed.plain_psnr,
            unit="dB",
            met=apart <= 0.3,
            note=f"{PLAIN_VICTIMS} victims, {WHOLE} steps: {speed.together_psnr:.2f} and "
            f"{speed.plain_psnr:.2f} dB",
            digits=2,
        ),
        Figure(
            what="gradient_inversion of one victim, times less than a plain autograd loop",
            asked="never slower",
            value=speed.alone_faster,
            unit="times",
            met=speed.alone_faster >= 1,
            note=f"{1e3 * speed.alone:.1f} ms a step",
            digits=2,
        ),
    )


def _measured() -> Speed:
    module, images, labels = _victims()
    seen = [_gradient(module, x, y) for x, y in zip(images, labels, strict=True)]
    starts = _noise(1)
    many = _matcher(module, seen)
    one = _matcher(module, seen[:1])
    wanted = F.one_hot(labels, 10).float()[:, None]
    plain, together, alone = [], [], []
    for _ in range(ROUNDS):
        plain.append(_timed(lambda: _plain(module, seen[0], starts[0], labels[0], STEPS)) / STEPS)
        together.append(_timed(lambda: _descent(many, starts, wanted, STEPS)) / STEPS / VICTIMS)
        alone.append(_timed(lambda: _descent(one, starts[:1], wanted[:1], STEPS)) / STEPS)
    few = range(PLAIN_VICTIMS)
    loop = [_plain(module, seen[i], starts[i], labels[i], WHOLE) for i in few]
    at_once = _descent(_matcher(module, seen[: len(few)]), starts[few], wanted[few], WHOLE)
    return Speed(
        plain=statistics.median(plain),
        together=statistics.median(together),
        alone=statistics.median(alone),
        together_faster=statistics.median(p / t for p, t in zip(plain, together, strict=True)),
        alone_faster=statistics.median(p / a for p, a in zip(plain, alone, strict=True)),
        plain_psnr=_psnr(torch.cat(loop), images[few]),
        together_psnr=_psnr(at_once[:, 0], images[few]),
    )


def _plain(module: LeNetZhu, seen: list[Tensor], x: Tensor, y: Tensor, steps: int) -> Tensor:
    """One victim, by the loop that anyone would write."""
    parameters = list(module.parameters())
    adam = Adam(x)
    length = sum(each.square().sum() for each in seen)
    for step in range(steps):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(module(x), y[None])
        found = torch.autograd.grad(loss, parameters, create_graph=True)
        dot = sum((a * b).sum() for a, b in zip(found, seen, strict=True))
        far = 1 - dot / (length * sum(each.square().sum() for each in found)).sqrt()
        (slope,) = torch.autograd.grad(far, x)
        x = _moved(x.detach(), slope, adam, step, steps)
    return x


def _descent(matcher: Matcher, x: Tensor, labels: Tensor, steps: int) -> Tensor:
    """Many victims, as the attack has it."""
    adam = Adam(x)
    for step in range(steps):
        x = _moved(x, matcher.pull(x, labels).x, adam, step, steps)
    return x


def _moved(x: Tensor, slope: Tensor, adam: Adam, step: int, steps: int) -> Tensor:
    rate = 0.1 * 0.1 ** sum(step >= steps * k / 8 for k in (3, 5, 7))
    slope = slope + SMOOTH / x[0].numel() * variation_slope(x)
    return (x - rate * adam.direction(slope.sign())).clamp(0, 1)


def _victims() -> tuple[LeNetZhu, Tensor, Tensor]:
    """A net and smooth random images: cubes of a few random numbers, enlarged."""
    rng = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = LeNetZhu()
    coarse = torch.rand(VICTIMS, 3, 5, 5, generator=rng)
    images = F.interpolate(coarse, SHAPE[1:], mode="bicubic").clamp(0, 1)
    return module, images, torch.randint(10, (VICTIMS,), generator=rng)


def _noise(seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (0.5 + 0.02 * torch.randn(VICTIMS, 1, *SHAPE, generator=rng)).clamp(0, 1)


def _gradient(module: LeNetZhu, x: Tensor, y: Tensor) -> list[Tensor]:
    loss = F.cross_entropy(module(x[None]), y[None])
    return list(torch.autograd.grad(loss, list(module.parameters())))


def _matcher(module: LeNetZhu, seen: list[list[Tensor]]) -> Matcher:
    names = [name for name, _ in module.named_parameters()]
    state = module.state_dict()
    problems = [Problem(dict(zip(names, each, strict=True)), state, torch.ones(1)) for each in seen]
    return Matcher(LeNetZhu(), problems, SHAPE, cosine)


def _timed(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _psnr(found: Tensor, true: Tensor) -> float:
    error = (found - true).square().flatten(1).mean(dim=1)
    return float((-10 * error.log10()).mean())


if __name__ == "__main__":
    for figure in figures():
        print(f"{figure.what}: {figure.words()} ({figure.asked}; {figure.note})")
