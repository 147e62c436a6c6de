"""Search for DP-SGD's settings at epsilon 3 on the digits, on auxiliary records alone.

    python benchmarks/tune_dpsgd.py            # prints the table, writes benchmarks/tune_dpsgd.csv

The 400 auxiliary records of ``data.split=thirds`` are public, so they may be searched on without
spending privacy. They are cut into 4 folds; a setting trains on three (300 records) and is measured
on the fourth. At the same sampling rate and number of steps the noise multiplier is the one that
600 private records need; but the noise in an averaged gradient is that multiplier times clip over the
expected batch, so on 300 records it would be twice as strong. The multiplier is therefore scaled by
300 / 600: what is tried has the signal-to-noise ratio of the deployment. The score is the mean
accuracy over folds and seeds; members and non-members are never looked at.
"""

from __future__ import annotations

import csv
import itertools
import statistics
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from defenses.dpsgd import DpSgd
from privbench.contract import Federation, Net, Recipe, Samples, Spec, load_name, spec_of
from privbench.data.digits import Digits
from privbench.data.splits import open_population
from privbench.regimes.training import accuracy

MEMBERS = 600  # private records of the deployment
CLIENTS = 12
FOLDS = 4
SEEDS = 1
NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 128, 64, 32, 10]}))


@dataclass(frozen=True)
class Setting:
    """One point of the search; ``batch`` and ``noise`` are those of the deployment."""

    regime: str
    rate: float  # expected share of the (client's) records in a batch
    steps: int
    lr: float
    clip: float


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    regime: str
    batch: int
    steps: int
    lr: float
    clip: float
    noise: float
    epsilon: float
    accuracy: float
    deviation: float


def settings() -> Iterator[Setting]:
    """The grid; while every gradient is clipped, lr and clip matter by their product alone."""
    for rate, steps, lr in itertools.product((0.25, 0.5), (100, 200, 300), (0.25, 0.5, 1.0)):
        yield Setting("dpsgd", rate, steps, lr, 1.0)
    for steps, lr in itertools.product((100, 200), (0.0625, 0.125)):
        yield Setting("dpsgd", 0.25, steps, lr, 4.0)
    yield Setting("dpsgd", 1.0, 200, 0.5, 1.0)  # full batches: four times the work of a quarter
    for steps, lr in itertools.product((10, 20, 40, 80), (0.25, 0.5, 1.0, 2.0)):
        yield Setting("fedavg_dpsgd", 1.0, steps, lr, 1.0)


def outcome(setting: Setting, auxiliary: Samples, resolved: DpSgd) -> Outcome:
    """Mean accuracy of one setting over folds and seeds."""
    folds = torch.arange(len(auxiliary)).tensor_split(FOLDS)
    found = []
    for fold, seed in itertools.product(range(FOLDS), range(SEEDS)):
        rest = torch.cat([part for number, part in enumerate(folds) if number != fold])
        found.append(_trained(setting, auxiliary[rest], auxiliary[folds[fold]], resolved, seed))
    return Outcome(
        regime=setting.regime,
        batch=resolved.batch or 0,
        steps=setting.steps,
        lr=setting.lr,
        clip=setting.clip,
        noise=round(resolved.noise or 0.0, 3),
        epsilon=round(resolved.spent or 0.0, 3),
        accuracy=round(statistics.mean(found), 4),
        deviation=round(statistics.stdev(found), 4),
    )


def _trained(setting: Setting, train: Samples, test: Samples, resolved: DpSgd, seed: int) -> float:
    """Accuracy of one model that is trained at the deployment's signal-to-noise ratio."""
    federated = setting.regime == "fedavg_dpsgd"
    records = len(train) // CLIENTS if federated else len(train)
    batch = round(setting.rate * records)
    scaled = DpSgd(
        clip=setting.clip,
        noise=(resolved.noise or 0.0) * batch / (resolved.batch or 1),
        batch=batch,
        spent=resolved.spent,
    )
    federation = Federation(CLIENTS, setting.steps, 1) if federated else None
    recipe = Recipe(
        net=NET,
        optimizer=Spec("torch.optim.SGD", {"lr": setting.lr}),
        epochs=setting.steps,
        steps=setting.steps,
        batch=batch,
        sampling="poisson",
        learning=spec_of(scaled),
        mechanism=scaled.mechanism(),
        federation=federation,
    )
    where = "fedavg.federated_train" if federated else "training.train"
    trainer = load_name(f"privbench.regimes.{where}")
    net = trainer(recipe, train, torch.Generator().manual_seed(seed))
    return accuracy(net.module(), test)


def search(seed: int = 0) -> list[Outcome]:
    """Every setting's outcome, best first within its regime."""
    auxiliary = open_population(Digits(), seed).population.auxiliary
    if auxiliary is None:
        raise SystemExit("the search needs auxiliary records; use the split 'thirds'")
    noises: dict[tuple[str, float, int], DpSgd] = {}
    found = []
    for setting in settings():
        key = (setting.regime, setting.rate, setting.steps)
        records = MEMBERS // CLIENTS if setting.regime == "fedavg_dpsgd" else MEMBERS
        if key not in noises:
            batch = round(setting.rate * records)
            noises[key] = DpSgd(epsilon=3.0).resolved(records, batch, setting.steps)
        found.append(outcome(setting, auxiliary, noises[key]))
        print(*asdict(found[-1]).values(), flush=True)
    return sorted(found, key=lambda row: (row.regime, -row.accuracy))


def main() -> None:
    """Search, print, write the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = search()
    path = Path(__file__).with_suffix(".csv")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "opacus", "scikit-learn"))
    with path.open("w", newline="") as file:
        file.write(
            f"# python benchmarks/tune_dpsgd.py; Python {sys.version.split()[0]}, {versions}\n"
        )
        writer = csv.DictWriter(file, list(asdict(found[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in found)
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
