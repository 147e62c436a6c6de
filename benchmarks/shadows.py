"""How much faster shadow models are trained together, or side by side, than one after another.

``python benchmarks/shadows.py``: 64 models 64-128-10, each on 898 of 1,797 digits, 100 epochs of
Adam 1e-3, batch 32, one thread. The plain loop over models (index slices, no data loader, the
optimiser as torch builds it) is measured on four models between two runs of the stacked trainer and
scaled to 64, since its time is the same for each model.

LeNet-5 does not stack: 8 of them, each on 512 images of noise, 6 epochs, are trained by the plain loop, by
``ShadowModels`` in this process, and by two processes of its own, in turns.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from figure import Figure
from sklearn.datasets import load_digits
from torch.nn import functional as F

from privbench.contract import (
    Budget,
    Fitted,
    Knowledge,
    Net,
    Public,
    Recipe,
    Samples,
    Spec,
    batches,
    child_rng,
)
from privbench.toolkit.shadows import ShadowModels, random_halves
from privbench.toolkit.stacked import train_stacked

MODELS, PLAIN_MODELS = 64, 4
CNNS, TURNS = 8, 3
PEERS = {"ML Privacy Meter": 2.1, "LeakPro": 2.4}
"""Seconds a model of the digits MLP, on a machine where the plain loop takes ``PLAIN``."""
PLAIN = 1.6


@dataclass(frozen=True)
class Speed:
    """Times of one run."""

    models: int
    stacked_seconds: float  # mean of the runs before and after the plain loop
    plain_seconds: float  # scaled from ``plain_models``
    plain_models: int
    times_faster: float
    largest_difference: float  # of a parameter of one model after two epochs on both roads


def digits() -> Samples:
    """All 1,797 digits, in [0, 1]."""
    bunch = load_digits()
    x = torch.tensor(bunch.data / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)
    return Samples(x, torch.tensor(bunch.target, dtype=torch.int64))


def recipe() -> Recipe:
    """The bench configuration of a shadow model."""
    net = Net(Spec("privbench.models.mlp.Mlp", {"widths": (64, 128, 10)}))
    return Recipe(net, Spec("torch.optim.Adam", {"lr": 1e-3}), epochs=100, batch=32)


def plain(how: Recipe, samples: Samples, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """One model, trained by the loop that anyone would write."""
    module = how.net.initialised(child_rng(rng, "init")).module().train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    order = batches(how, len(samples), child_rng(rng, "batches"))
    for _ in range(how.epochs * -(-len(samples) // how.batch)):
        rows = next(order)
        optimizer.zero_grad()
        F.cross_entropy(module(samples.x[rows]), samples.y[rows]).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def measure(models: int = MODELS, plain_models: int = PLAIN_MODELS) -> Speed:
    """Time both roads in turns, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(models, plain_models)
    finally:
        torch.set_num_threads(before)


def _measured(models: int, plain_models: int) -> Speed:
    samples, how, root = digits(), recipe(), torch.Generator().manual_seed(0)
    member = random_halves(models, len(samples), child_rng(root, "halves"))
    rngs = [child_rng(root, "model", i) for i in range(models)]
    short = replace(
        how, epochs=2
    )  # long training multiplies rounding; and first calls load libraries
    twin = plain(short, samples[member[0]], rngs[0])
    stack = train_stacked(short, samples, member[:1], rngs[:1])
    apart = max(float((stack.of(0)[name] - tensor).abs().max()) for name, tensor in twin.items())
    marks = [time.perf_counter()]
    train_stacked(how, samples, member, rngs)
    marks.append(time.perf_counter())
    for i in range(plain_models):
        plain(how, samples[member[i]], rngs[i])
    marks.append(time.perf_counter())
    train_stacked(how, samples, member, rngs)
    marks.append(time.perf_counter())
    together = (marks[1] - marks[0] + marks[3] - marks[2]) / 2
    scaled = (marks[2] - marks[1]) * models / plain_models
    return Speed(models, together, scaled, plain_models, scaled / together, apart)


@dataclass(frozen=True)
class Apart:
    """Networks that do not stack; medians over turns."""

    models: int
    processor: float  # time of ours in one process, over the plain loop's
    faster: float  # the plain loop's time on the clock over that of two processes of ours
    both: float  # processor time of the two processes over the plain loop's
    same: bool  # bits of all three


@dataclass(frozen=True)
class _Clocked:
    result: list[dict[str, torch.Tensor]]
    seconds: float
    processor: float  # s, of processes that have ended too


def apart(models: int = CNNS, turns: int = TURNS) -> Apart:
    """Time convolutional networks, on one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _apart(models, turns)
    finally:
        torch.set_num_threads(before)


def _apart(models: int, turns: int) -> Apart:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(1024, 1, 28, 28, generator=rng)
    pool = Samples(images, torch.randint(10, (1024,), generator=rng))
    net = Net(Spec("privbench.models.lenet.LeNet5"))
    how = Recipe(net, Spec("torch.optim.Adam", {"lr": 1e-3}), epochs=6, batch=32)
    public = Public(candidates=pool, recipe=how, trainer="privbench.regimes.training.train")

    def ours(workers: int) -> list[dict[str, torch.Tensor]]:
        knowledge = Knowledge(public, Budget(shadow_models=models), workers=workers)
        fitted = ShadowModels(pairing="independent").fit(knowledge, torch.Generator())
        return _states(fitted)

    def loop() -> list[dict[str, torch.Tensor]]:
        root = torch.Generator()
        member = random_halves(models, len(pool), child_rng(root, "halves"), paired=False)
        rngs = [child_rng(root, "model", i) for i in range(models)]
        return [plain(how, pool[member[i]], rngs[i]) for i in range(models)]

    plain(replace(how, epochs=1), pool[:64], rng)  # first calls load libraries
    found = [
        (_clocked(loop), _clocked(lambda: ours(1)), _clocked(lambda: ours(2))) for _ in range(turns)
    ]
    return Apart(
        models,
        statistics.median(one.processor / base.processor for base, one, _ in found),
        statistics.median(base.seconds / two.seconds for base, _, two in found),
        statistics.median(two.processor / base.processor for base, _, two in found),
        all(
            torch.equal(tensor, other[name])
            for base, *others in found
            for each in others
            for state, other in zip(base.result, each.result, strict=True)
            for name, tensor in state.items()
        ),
    )


def _states(fitted: Fitted) -> list[dict[str, torch.Tensor]]:
    named = {k.removeprefix("param:"): v for k, v in fitted.tensors.items() if k != "member"}
    return [{name: t[i] for name, t in named.items()} for i in range(len(fitted.tensors["member"]))]


def _clocked(work: Callable[[], list[dict[str, torch.Tensor]]]) -> _Clocked:
    clock, spent = time.perf_counter(), _spent()
    result = work()
    return _Clocked(result, time.perf_counter() - clock, _spent() - spent)


def _spent() -> float:
    every = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in every)


def figures() -> tuple[Figure, ...]:
    """All that is promised of training shadow models."""
    speed, other = measure(), apart()
    peers = ", ".join(
        f"{seconds / PLAIN * speed.times_faster:.1f} times less than {name}"
        for name, seconds in PEERS.items()
    )
    return (
        Figure(
            what=f"LiRA's {speed.models} shadow models, together against one after another",
            asked="at least 5 times faster; aim 8",
            value=speed.times_faster,
            unit="times",
            met=speed.times_faster >= 5,
            note=f"one thread: {speed.stacked_seconds:.1f} s against {speed.plain_seconds:.1f} s "
            f"(scaled from {speed.plain_models}); after two epochs parameters differ by at most "
            f"{speed.largest_difference:.0e}",
        ),
        Figure(
            what="the same, time a model against other tools' (the lesser of two)",
            asked="at least 6.5 times less",
            value=speed.times_faster * min(PEERS.values()) / PLAIN,
            unit="times",
            met=speed.times_faster * min(PEERS.values()) / PLAIN >= 6.5,
            note=f"{peers}, by their times elsewhere over that of a plain loop there "
            f"({', '.join(f'{seconds} s' for seconds in PEERS.values())} over {PLAIN} s)",
        ),
        Figure(
            what=f"{other.models} convolutional shadow models in one process, over the plain loop",
            asked="at most 1.00 (1.03 with noise)",
            value=other.processor,
            unit="times",
            met=other.processor <= 1.03,
            note=f"processor time, medians of {TURNS} turns; LeNet-5; same bits: {other.same}",
            digits=2,
        ),
        Figure(
            what="the same in two processes, faster than the plain loop",
            asked="at least 1.7 times on two cores",
            value=other.faster,
            unit="times",
            met=other.faster >= 1.7 and other.same,
            note=f"on the clock, medians of {TURNS} turns; processor time {other.both:.2f} times the loop's",
            digits=2,
        ),
    )


if __name__ == "__main__":
    cnns = apart()
    print(
        f"{cnns.models} convolutional networks: {cnns.processor:.2f} times the plain loop's processor "
        f"time; two processes {cnns.faster:.2f} times faster ({cnns.both:.2f} times its processor "
        f"time); same bits: {cnns.same}"
    )
    speed = measure()
    print(
        f"{speed.models} models: together {speed.stacked_seconds:.1f} s, one after another "
        f"{speed.plain_seconds:.1f} s (scaled from {speed.plain_models}): "
        f"{speed.times_faster:.1f} times faster; after two epochs parameters differ by "
        f"at most {speed.largest_difference:.1e}"
    )
