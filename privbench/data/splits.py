"""Opens a data set: splits its records by seed, and starts the truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Samples, child_rng
from privbench.data.canaries import Planted, plant, with_canaries
from privbench.data.duplicates import nearness, repeated
from privbench.data.population import Population
from privbench.data.source import PARTS, SPLITS, DataSource, Records, digest
from privbench.data.truth import Truth
from privbench.errors import DataError

MEMBER, NON_MEMBER, AUXILIARY, EVALUATOR = range(len(PARTS))
NEEDED = {"thirds": 9, "halves": 2}  # records of the rarest class, so that each part holds one


@dataclass(frozen=True, eq=False)
class Opened:
    """A data set, split.

    Args:
        population: what a regime may know.
        truth: what the scorer alone may know.
        candidates: members and non-members, shuffled; with canaries these, inserted or not; None
            where membership is not applicable.
        evaluator: records kept for judging networks; None where the split has none.
        notices: sentences for the report: what was removed, what is suspicious.
        digest: hash of the data's bytes.
        canary: kind of the canaries; empty = none.
        numbers: which record of the data each candidate is, from 0; of canaries which canary.
    """

    population: Population
    truth: Truth
    candidates: Samples | None
    evaluator: Samples | None
    notices: tuple[str, ...]
    digest: str
    canary: str = ""
    numbers: Int64[Tensor, " candidates"] = field(
        default_factory=lambda: torch.empty(0, dtype=torch.int64)
    )

    @property
    def sizes(self) -> dict[str, int]:
        """Records of each part, by name."""
        people = self.population
        parts = (people.train, people.held_out, people.auxiliary, self.evaluator)
        names = ("members", "non-members", "auxiliary", "evaluator")
        found = {
            name: len(part) for name, part in zip(names, parts, strict=True) if part is not None
        }
        if self.canary:
            found["canaries"] = len(self.candidates or ())
        return found


def open_population(source: DataSource, seed: int) -> Opened:
    """Split a data set.

    ``thirds``: members and non-members 1/3 each (rounded up to even numbers), auxiliary 2/9,
    evaluator the rest; ``halves``: members and non-members alone; both stratified by label, by
    seed. ``official``: the training set trains, the test set measures and is the public set;
    membership is then not applicable. ``given``: each record's part as the data say. With canaries
    the private records are the members and those canaries whose coin said so; canaries that were left
    out are nowhere.

    Raises:
        DataError: an unknown split, one that the data do not have, too few records, or canaries in a
            split that says itself who is a member.
    """
    records = source.load()
    way = _way(source, records)
    rng = child_rng(torch.Generator().manual_seed(seed), "split")
    parts, removed = _parts(records, way, rng)
    where = [_shuffled(parts, part, child_rng(rng, PARTS[part])) for part in range(len(PARTS))]
    _check(where, way)
    samples = records.samples
    classes = int(_labels(samples).max()) + 1
    train, held_out = samples[where[MEMBER]], samples[where[NON_MEMBER]]
    auxiliary = samples[where[AUXILIARY]] if len(where[AUXILIARY]) else None
    rest = samples.x[torch.cat(where[NON_MEMBER:])]
    notices = [removed, nearness(train.x, rest)]
    if source.canaries:
        planted = _planted(source, way, held_out, classes, rng)
        train, places = with_canaries(train, planted, rng)
        truth, candidates = Truth(train, places), planted.records
        numbers = torch.arange(source.canaries)
        held_out = held_out[source.canaries :]
        notices.append(
            f"{source.canaries} {source.canary} canaries were made of non-members; a fair coin each "
            "decided whether it is among the private records"
        )
    elif way == "official":
        auxiliary = held_out if auxiliary is None else auxiliary
        truth, candidates = Truth(train), None
        numbers = torch.empty(0, dtype=torch.int64)
    else:
        mixed = torch.randperm(len(train) + len(held_out), generator=child_rng(rng, "candidates"))
        truth = Truth(train, torch.where(mixed < len(train), mixed, -1))
        numbers = torch.cat([where[MEMBER], where[NON_MEMBER]])[mixed]
        candidates = samples[numbers]
    return Opened(
        population=Population(
            train, held_out, auxiliary, classes, truth, told=way in ("official", "given")
        ),
        truth=truth,
        candidates=candidates,
        evaluator=samples[where[EVALUATOR]] if len(where[EVALUATOR]) else None,
        notices=tuple(notice for notice in notices if notice),
        digest=digest(records),
        canary=source.canary if source.canaries else "",
        numbers=numbers,
    )


def _planted(
    source: DataSource, way: str, pool: Samples, classes: int, rng: torch.Generator
) -> Planted:
    if way in ("official", "given"):
        raise DataError(
            f"data.canaries={source.canaries} with data.split={way}: coins decide about canaries, and "
            "this split says itself who trains; type data.split=thirds or data.split=halves"
        )
    return plant(pool, source.canaries, source.canary, classes, rng)


def _way(source: DataSource, records: Records) -> str:
    way = source.split
    if way == "auto":
        way = "thirds" if records.parts is None else "given"
    if way not in SPLITS:
        raise DataError(f"data.split='{way}' is unknown; expected {', '.join(SPLITS)}")
    if way in ("official", "given") and records.parts is None:
        raise DataError(
            f"data.split={way} needs records that say where they belong, data={source.name} has none "
            "that do; type data.split=thirds or data.split=halves"
        )
    return way


def _parts(records: Records, way: str, rng: torch.Generator) -> tuple[Int64[Tensor, " n"], str]:
    """The part of each record, -1 for a removed duplicate; a sentence about those."""
    x, labels = records.samples.x, _labels(records.samples)
    if records.parts is not None and way in ("official", "given"):
        # the member's copy stays: it did train the model
        order = torch.argsort(records.parts, stable=True)
        parts = records.parts.clone()
        earlier = repeated(x, order) & (parts != MEMBER)
    else:
        earlier = repeated(x, torch.arange(len(x)))
        parts = torch.full((len(x),), -1, dtype=torch.int64)
        kept = (~earlier).nonzero().flatten()
        parts[kept] = _drawn(labels[kept], way, rng)
    parts[earlier] = -1
    count = int(earlier.sum())
    sentence = f"{count} exact duplicates were removed, so that no two splits share a record"
    return parts, sentence if count else ""


def _drawn(labels: Int64[Tensor, " n"], way: str, rng: torch.Generator) -> Int64[Tensor, " n"]:
    """Parts drawn by seed, with each label in each part as often as its share says, give or take 1."""
    counts = torch.bincount(labels)
    needed, rarest = NEEDED[way], int(counts.argmin())
    if int(counts[rarest]) < needed:
        instead = "; type data.split=halves, which needs 2" if way == "thirds" else ""
        raise DataError(
            f"data.split={way} needs {needed} different records of each class, class {rarest} has "
            f"{int(counts[rarest])}: add records{instead}"
        )
    n = len(labels)
    if way == "halves":
        sizes = [n // 2, n // 2]
    else:
        candidates = -(-n // 3) + -(-n // 3) % 2  # even: shadow models train on halves of them
        public = min(-(-2 * n // 9), n - 2 * candidates - 1)
        sizes = [candidates, candidates, public, n - 2 * candidates - public]
    # Each class is spread evenly over [0, 1) in random order; cutting there stratifies.
    mixed = torch.randperm(n, generator=rng)
    place = torch.empty(n, dtype=torch.float64)
    for label in range(len(counts)):
        mine = mixed[labels[mixed] == label]
        place[mine] = (torch.arange(len(mine), dtype=torch.float64) + 0.5) / len(mine)
    order = mixed[torch.argsort(place[mixed], stable=True)]
    parts = torch.full((n,), -1, dtype=torch.int64)
    for part, chosen in enumerate(order[: sum(sizes)].split(sizes)):
        parts[chosen] = part
    return parts


def _shuffled(parts: Tensor, part: int, rng: torch.Generator) -> Tensor:
    found = (parts == part).nonzero().flatten()
    return found[torch.randperm(len(found), generator=rng)]


def _check(where: list[Tensor], way: str) -> None:
    for part in (MEMBER, NON_MEMBER):
        if len(where[part]) < 2:
            raise DataError(
                f"data.split={way} leaves {len(where[part])} {PARTS[part]} records, expected at least "
                "2 that do not occur elsewhere: add records"
            )


def _labels(samples: Samples) -> Int64[Tensor, " n"]:
    if samples.y is None:
        raise DataError("expected labels y, got none")
    return samples.y
