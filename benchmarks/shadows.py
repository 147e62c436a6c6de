"""How much faster shadow models are trained together than one after another.

``python benchmarks/shadows.py``: 64 models 64-128-10, each on 898 of 1,797 digits, 100 epochs of
Adam 1e-3, batch 32, one thread. The plain loop over models (index slices, no data loader, the
optimiser as torch builds it) is measured on four models between two runs of the stacked trainer and
scaled to 64, since its time is the same for each model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from privbench.contract import Net, Recipe, Samples, Spec, batches, child_rng
from privbench.toolkit.shadows import random_halves
from privbench.toolkit.stacked import train_stacked

MODELS, PLAIN_MODELS = 64, 4


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


if __name__ == "__main__":
    speed = measure()
    print(
        f"{speed.models} models: together {speed.stacked_seconds:.1f} s, one after another "
        f"{speed.plain_seconds:.1f} s (scaled from {speed.plain_models}): "
        f"{speed.times_faster:.1f} times faster; after two epochs parameters differ by "
        f"at most {speed.largest_difference:.1e}"
    )
