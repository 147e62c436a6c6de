"""Search for DP-SGD's settings on auxiliary records alone.

    python benchmarks/tune_dpsgd.py                      # digits, epsilon 1, 3 and 8; writes tune_dpsgd.csv
    python benchmarks/tune_dpsgd.py data=adult data.root=FOLDER data.records=2400 model.widths=[108,64,32,2]
    python benchmarks/tune_dpsgd.py data=adult … --epsilon 3 --steps 100 200      # a part of the grid

What is searched replaces its like in the table; other rows stay. The auxiliary records of
``data.split=thirds`` are public, so they may be searched on without spending privacy. They are cut
into 4 folds; a setting trains on three and is measured on the fourth, with two seeds each, all eight
models side by side (networks that cannot be stacked: one after another, one seed). At the same
sampling rate and number of steps the noise multiplier is the one that the private records need; but
the noise in an averaged gradient is that multiplier times clip over the expected batch, so on fewer
records it would be stronger. The multiplier is therefore scaled by their share: what is tried has the
signal-to-noise ratio of the deployment. The score is the mean accuracy over folds and seeds; members
and non-members are never looked at.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from defenses.dpsgd import DpSgd
from privbench.compose.launch import one
from privbench.compose.words import understood
from privbench.contract import Federation, Net, Recipe, Samples, Spec, spec_of
from privbench.data.splits import open_population
from privbench.errors import TrainingError
from privbench.regimes.fedavg import federated_train
from privbench.regimes.training import accuracy
from privbench.regimes.training import train as plain_train
from privbench.toolkit.stacked import TRAINERS, stackable, train_stacked

CLIENTS = 12
FOLDS = 4
SEEDS = 2
TABLE = Path(__file__).with_suffix(".csv")
POINT = (
    "data",
    "records",
    "regime",
    "target",
    "batch",
    "steps",
    "lr",
    "clip",
)  # one row of the table


@dataclass(frozen=True)
class Setting:
    """One point of the search; ``rate`` is that of the deployment."""

    regime: str
    rate: float  # expected share of the (client's) records in a batch
    steps: int
    lr: float
    clip: float


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    data: str
    records: int  # private ones of the deployment
    regime: str
    target: float  # epsilon that was asked for
    batch: int
    steps: int
    lr: float
    clip: float
    noise: float
    epsilon: float
    accuracy: float
    deviation: float


@dataclass(frozen=True)
class Asked:
    """What is searched: None = the whole grid."""

    epsilons: list[float]
    regimes: list[str]
    steps: list[int] | None = None
    rates: list[float] | None = None
    products: list[float] | None = None

    def settings(self, regime: str) -> Iterator[Setting]:
        """The points of the grid that are asked for."""
        for setting in grid(regime):
            parts = (
                (self.steps, setting.steps),
                (self.rates, setting.rate),
                (self.products, setting.lr * setting.clip),
            )
            if all(some is None or value in some for some, value in parts):
                yield setting


def grid(regime: str) -> Iterator[Setting]:
    """All points; while every gradient is clipped, lr and clip matter by their product alone."""
    if regime == "dpsgd":
        for steps, product in itertools.product(
            (25, 50, 100, 200, 400), (0.25, 0.5, 1.0, 2.0, 4.0)
        ):
            for rate, clip in ((0.125, 1.0), (0.25, 1.0), (0.25, 4.0), (0.5, 1.0)):
                yield Setting(regime, rate, steps, product / clip, clip)
    else:
        for steps, lr in itertools.product((5, 10, 20, 40, 80), (0.25, 0.5, 1.0, 2.0)):
            yield Setting(regime, 1.0, steps, lr, 1.0)


def outcome(
    setting: Setting,
    data: str,
    records: int,
    net: Net,
    auxiliary: Samples,
    target: float,
    resolved: DpSgd,
) -> Outcome:
    """Mean accuracy of one setting over folds and seeds."""
    together = stackable(
        Recipe(net, Spec("torch.optim.SGD"), 1, 1), TRAINERS[0], auxiliary.x.shape[1:]
    )
    folds = torch.arange(len(auxiliary)).tensor_split(FOLDS)
    member = torch.ones(FOLDS * (SEEDS if together else 1), len(auxiliary), dtype=torch.bool)
    for model in range(len(member)):
        member[model, folds[model % FOLDS]] = False
    try:
        states = _trained(setting, net, auxiliary, member, resolved, together)
        found = [
            accuracy(Net(net.spec, state).module(), auxiliary[~member[model]])
            for model, state in enumerate(states)
        ]
    except TrainingError:  # the steps were too large for these records
        found = [0.0, 0.0]
    return Outcome(
        data=data,
        records=records,
        regime=setting.regime,
        target=target,
        batch=resolved.batch or 0,
        steps=setting.steps,
        lr=setting.lr,
        clip=setting.clip,
        noise=round(resolved.noise or 0.0, 3),
        epsilon=round(resolved.spent or 0.0, 3),
        accuracy=round(statistics.mean(found), 4),
        deviation=round(statistics.stdev(found), 4),
    )


def _trained(
    setting: Setting,
    net: Net,
    auxiliary: Samples,
    member: torch.Tensor,
    resolved: DpSgd,
    together: bool,
) -> list[Mapping[str, torch.Tensor]]:
    """The state of a model for each row of ``member``, at the deployment's signal-to-noise ratio."""
    federated = setting.regime == "fedavg_dpsgd"
    records = int(member[0].sum()) // (CLIENTS if federated else 1)
    batch = max(1, round(setting.rate * records))
    scaled = DpSgd(
        clip=setting.clip,
        noise=(resolved.noise or 0.0) * batch / (resolved.batch or 1),
        batch=batch,
        spent=resolved.spent,
    )
    recipe = Recipe(
        net=net,
        optimizer=Spec("torch.optim.SGD", {"lr": setting.lr}),
        epochs=setting.steps,
        steps=setting.steps,
        batch=batch,
        sampling="poisson",
        learning=spec_of(scaled),
        mechanism=scaled.mechanism(),
        federation=Federation(CLIENTS, setting.steps, 1) if federated else None,
    )
    rngs = [torch.Generator().manual_seed(model) for model in range(len(member))]
    if together:
        models = train_stacked(recipe, auxiliary, member, rngs)
        return [models.of(model) for model in range(len(member))]
    train = federated_train if federated else plain_train
    trained = zip(member, rngs, strict=True)
    return [train(recipe, auxiliary[mine], rng).weights or {} for mine, rng in trained]


def search(words: list[str], asked: Asked) -> Iterator[Outcome]:
    """Every setting's outcome."""
    plan = one(understood(["regime=centralized", *words])).plan
    opened = open_population(plan.data, plan.seed)
    auxiliary, members = opened.population.auxiliary, opened.sizes["members"]
    if auxiliary is None:
        raise SystemExit("the search needs auxiliary records; use data.split=thirds")
    for regime, target in itertools.product(asked.regimes, asked.epsilons):
        noises: dict[tuple[float, int], DpSgd] = {}
        records = members // CLIENTS if regime == "fedavg_dpsgd" else members
        for setting in asked.settings(regime):
            key = (setting.rate, setting.steps)
            if key not in noises:
                batch = round(setting.rate * records)
                noises[key] = DpSgd(epsilon=target).resolved(records, batch, setting.steps)
            data = plan.names.data
            yield outcome(setting, data, members, plan.model, auxiliary, target, noises[key])


def main() -> None:
    """Search, print, write the table: rows of other data, regimes, epsilons and settings stay."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epsilon", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    parser.add_argument("--regime", nargs="+", default=["dpsgd"], choices=["dpsgd", "fedavg_dpsgd"])
    parser.add_argument("--steps", type=int, nargs="+")
    parser.add_argument("--rate", type=float, nargs="+", help="share of the records in a batch")
    parser.add_argument("--product", type=float, nargs="+", help="learning rate times clip")
    given, words = parser.parse_known_args()
    asked = Asked(given.epsilon, given.regime, given.steps, given.rate, given.product)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = []
    for row in search(words, asked):
        found.append({name: str(value) for name, value in asdict(row).items()})
        print(*found[-1].values(), flush=True)
    new = {tuple(row[name] for name in POINT) for row in found}
    rows = [row for row in _table() if tuple(row[name] for name in POINT) not in new]
    rows = sorted(
        rows + found,
        key=_place,
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "opacus", "scikit-learn"))
    with TABLE.open("w", newline="") as file:
        file.write(
            f"# python benchmarks/tune_dpsgd.py; Python {sys.version.split()[0]}, {versions}\n"
        )
        writer = csv.DictWriter(file, list(Outcome.__annotations__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written to {TABLE.name}")


def _place(row: Mapping[str, str]) -> tuple[str, int, str, float, float]:
    """Where a row stands: the best of its kind first."""
    found = float(row["target"]), -float(row["accuracy"])
    return row["data"], int(row["records"]), row["regime"], *found


def _table() -> list[dict[str, str]]:
    """What earlier searches found."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


if __name__ == "__main__":
    main()
