"""Train one network on CIFAR-10 by itself and by a crowd, and compare: accuracy, loss, weights.

``python benchmarks/cifar.py FOLDER SEED [SEED …]`` prints a line a training and writes cifar.csv beside
this file. FOLDER holds the data set's files. Half an hour a seed on one core.
"""

from __future__ import annotations

import csv
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from privbench.contract import Net, Spec
from privbench.data.cifar10 import Cifar10
from privbench.data.splits import open_population
from privbench.regimes.base import Regime, Trained
from privbench.regimes.centralized import Centralized
from privbench.regimes.slicenet import SliceNet
from privbench.slicenet.crowds.presets import Presets
from privbench.slicenet.slicers.hypergraph import Hypergraph
from privbench.targets import accuracy
from privbench.wire.tap import Tap
from privbench.wire.wire import Wire

HERE = Path(__file__).resolve().parent
SETTINGS = {
    "optimizer": "torch.optim.Adam",
    "lr": 1e-3,
    "decay": "linear",
    "batch": 64,
    "epochs": 8,
}
WIDTHS = {"convolutions": [32, 64, 96, 96, 64], "widths": [256, 128], "dropout": 0.3}
MODEL = Net(Spec("privbench.models.alexnet.AlexNet", WIDTHS))
FIRST = 20  # steps whose weights are compared number by number


@dataclass(frozen=True)
class Row:
    """One training."""

    seed: int
    regime: str
    accuracy: float  # on the 10,000 test images
    train_accuracy: float
    last_loss: float
    seconds: float


class Everything(Tap):
    """Asks for every message and keeps none: the crowd then computes all parts."""

    def open(self, topology, router) -> None:
        """Nothing to note."""

    def begin(self, step, owners) -> None:
        """Nothing to note."""

    def keeps(self, step, kind) -> bool:
        """Everything."""
        return True

    def take(self, message) -> None:
        """Let it pass."""

    def hold(self, step, state) -> None:
        """Let it pass."""

    def close(self) -> None:
        """Nothing to write."""


def regimes(**settings) -> tuple[Regime, Regime]:
    """Centralized training, and a crowd of fifty phones."""
    crowd = SliceNet(
        crowd=Presets(devices=50), slicer=Hypergraph(), granularity=4, **{**SETTINGS, **settings}
    )
    return Centralized(**{**SETTINGS, **settings}), crowd


def trained(regime: Regime, folder: str, seed: int, records: int | None = None, taps=()) -> Trained:
    """Train on the official training set (or its first records)."""
    population = open_population(Cifar10(root=folder, split="official"), seed).population
    if records is not None:
        population = replace(population, train=population.train[torch.arange(records)])
    rng = torch.Generator().manual_seed(seed)
    return regime.train(MODEL, population, Wire(taps), rng, "cpu")


def measure(folder: str, seed: int) -> tuple[Row, ...]:
    """Both trainings of one seed, in full."""
    rows = []
    for regime in regimes():
        people = open_population(Cifar10(root=folder, split="official"), seed).population
        started = time.perf_counter()
        done = trained(regime, folder, seed)
        seconds = time.perf_counter() - started
        rows.append(
            Row(
                seed, regime.name, accuracy(done.net, people.held_out),
                accuracy(done.net, people.train[torch.arange(10_000)]), done.losses[-1], seconds,
            )
        )  # fmt: skip
        print(rows[-1], flush=True)
    return tuple(rows)


def first_steps(folder: str, seed: int) -> float:
    """Largest relative difference of a tensor after twenty steps, when every message is asked for."""
    central, crowd = regimes(epochs=1)
    records = FIRST * SETTINGS["batch"]
    one = trained(central, folder, seed, records).net.weights
    other = trained(crowd, folder, seed, records, (Everything(),)).net.weights
    return max(_difference(one[name], other[name]) for name in one)


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / one.norm())


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, *seeds = sys.argv[1:]
    print("largest difference after", FIRST, "steps:", first_steps(where, 0), flush=True)
    file = HERE / "cifar.csv"
    known = file.read_text() if file.exists() else ""
    with file.open("a", newline="") as sheet:
        writer = csv.writer(sheet)
        if not known:
            writer.writerow(Row.__annotations__)
        for number in map(int, seeds):
            for row in measure(where, number):
                writer.writerow(vars(row).values())
                sheet.flush()
