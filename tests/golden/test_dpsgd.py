"""DP-SGD on MNIST with the settings of Opacus' example: its accuracies, and today's epsilons.

The example's table gives epsilons of a moments accountant (1.19, 3.01, 7.10); ours are of the
numerical accountant, which is tighter.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import mean, stdev

import pytest
import torch
from ledger import note

from defenses.dpsgd import DpSgd
from privbench.contract import Net, Recipe, Samples, Spec, spec_of
from privbench.data.mnist import Mnist
from privbench.regimes.training import accuracy, train

pytestmark = [pytest.mark.golden, pytest.mark.timeout(8 * 3600)]

SEEDS = range(3)
BATCH = 240  # expected: 0.4 % of 60,000
AGREE = 0.5  # percentage points
DELTA = 1e-5


@dataclass(frozen=True)
class Example:
    """One parameter set of the example, what it says of it, and about what is spent."""

    sigma: float
    clip: float
    rate: float
    epochs: int
    published: float  # accuracy, %, over 10 runs
    epsilon: float  # by today's accountant, roughly


EXAMPLES = (
    Example(sigma=1.3, clip=1.5, rate=0.25, epochs=15, published=94.63, epsilon=0.9),
    Example(sigma=1.1, clip=1.0, rate=0.15, epochs=60, published=96.78, epsilon=2.5),
    Example(sigma=0.7, clip=1.5, rate=0.25, epochs=45, published=97.09, epsilon=6.0),
)


@pytest.fixture(scope="module")
def sets(root: str) -> tuple[Samples, Samples]:
    """The official training and test sets."""
    samples = Mnist(root=root).load().samples
    return samples[:60000], samples[60000:]


def trained(example: Example, spent: DpSgd, records: Samples, seed: int) -> Net:
    """One run of the example."""
    recipe = Recipe(
        net=Net(Spec("opacus_net.example")),
        optimizer=Spec("torch.optim.SGD", {"lr": example.rate}),
        epochs=example.epochs,
        batch=BATCH,
        sampling="poisson",
        learning=spec_of(spent),
        mechanism=spent.mechanism(),
    )
    return train(recipe, records, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"sigma {example.sigma}")
def test_private_training_is_as_accurate_as_published(
    example: Example, sets: tuple[Samples, Samples]
) -> None:
    """Accuracy within half a point; the spent epsilon is printed beside it."""
    records, test = sets
    begun = time.monotonic()
    steps = example.epochs * len(records) // BATCH
    defense = DpSgd(noise=example.sigma, clip=example.clip, delta=DELTA)
    spent = defense.resolved(len(records), BATCH, steps)
    found = []
    for seed in SEEDS:
        net = trained(example, spent, records, seed)
        found.append(100 * accuracy(net.module(), test))
        print(f"sigma {example.sigma}, seed {seed}: {found[-1]:.2f} %", flush=True)
    note(
        f"Opacus' MNIST example, DP-SGD, sigma {example.sigma}, accuracy %",
        f"clip {example.clip}, rate {example.rate}, batch {BATCH}, {example.epochs} epochs, seeds 0 to 2",
        published=example.published,
        replica=mean(found),
        low=example.published - AGREE,
        high=example.published + AGREE,
        n=len(found),
        seconds=time.monotonic() - begun,
        remark=f"epsilon {spent.cost().epsilon:.2f} at delta {DELTA:g} (numerical accountant); "
        f"standard deviation over seeds {stdev(found):.2f}",
    )
    assert abs(mean(found) - example.published) <= AGREE
    assert spent.cost().epsilon == pytest.approx(example.epsilon, rel=0.15)
