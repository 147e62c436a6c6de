"""What one run leaves behind: scores with their circumstances, as report.json and as table rows."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from privbench.errors import StorageError
from privbench.report.columns import COLUMNS, SUMMARY
from privbench.report.crowd import CrowdFacts
from privbench.report.pictures import load_pictures, save_pictures
from privbench.scoring.score import Pictures, Roc, Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 2
"""Version of report.json; a reader refuses what it does not know."""


@dataclass(frozen=True)
class Names:
    """What the run was called: the choices that were composed."""

    study: str = ""
    row: str = ""
    data: str = ""
    model: str = ""
    regime: str = ""
    defense: str = ""
    threat: str = ""
    attack: str = ""
    variant: str = ""
    goal: str = ""


@dataclass(frozen=True)
class SeatFacts:
    """What a seat had to go on."""

    seat: str
    column: str
    pairs: str = ""
    n_pairs: int = 0
    rows_seen: int = 0
    steps_seen: int = 0
    depth: int | None = None  # layers before the shallowest that it sees
    share_seen: float | None = None  # of that layer's channels
    epochs_seen: int | None = None
    coalition: int | None = None  # parties that it controls


SEAT_FACTS = tuple(f.name for f in fields(SeatFacts) if f.name != "seat")
"""Columns that say what a seat had to go on."""


@dataclass(frozen=True)
class Refusal:
    """Seats that could not be attacked, and why."""

    reason: str
    seats: int
    column: str = ""


@dataclass(frozen=True)
class Target:
    """How good and how dear the trained model is."""

    accuracy: float | None = None  # on the non-members
    train_accuracy: float | None = None
    bytes_per_sample: float | None = None
    flops_per_sample: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    epsilon_covers: str = ""
    train_seconds: float | None = None
    accuracy_low: float | None = None  # 95 % interval of accuracy
    accuracy_high: float | None = None
    losses: tuple[float, ...] = ()  # of training, in order; means over equal spans
    passes: float | None = None  # over the records, that these losses span


@dataclass(frozen=True)
class Run:
    """Circumstances of the run itself."""

    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    fingerprint: str = ""
    sealed: bool = False
    shadow_models: int | None = None
    queries: int | None = None
    attack_seconds: float | None = None
    guess_hash: str = ""  # taken before the truth was opened
    worst_column: str = ""  # column of the worst seat, where it differs from the others'
    versions: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)  # records of each part
    command: str = ""  # what to type for this run
    config: str = ""
    notices: tuple[str, ...] = ()  # about the data
    warnings: tuple[str, ...] = ()  # what makes the numbers worth less than they look
    recorded: str = ""  # the capture policy


@dataclass(frozen=True)
class Report:
    """Everything about one run.

    ``status``: ``ok``, ``not_applicable``, ``same_as`` or ``failed``; ``reason`` says why.
    ``references`` are scores of methods that use the truth, never to be read as an attack's.
    ``pictures`` lie in a file of their own and are no part of a report's equality.
    """

    names: Names
    status: str = "ok"
    reason: str = ""
    scores: tuple[Score, ...] = ()
    references: tuple[Score, ...] = ()
    seats: tuple[SeatFacts, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    target: Target = Target()
    run: Run = Run()
    curves: tuple[Roc, ...] = ()
    crowd: CrowdFacts | None = None
    pictures: tuple[Pictures, ...] = field(default=(), compare=False)

    def table(self) -> pd.DataFrame:
        """One row a score (and one a refusal), with the columns of table.csv."""
        rows = [self._score_row(score) for score in self.scores]
        rows += [self._refusal_row(refusal) for refusal in self.refusals]
        if not rows:
            rows = [self._row(verdict=self.status.replace("_", " "))]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def leakage_map(self) -> Figure:
        """The sliced network and its devices, coloured by what each can find out (matplotlib).

        Raises:
            UsageError: no network was sliced, or no single device attacked.
        """
        from privbench.report import plots

        return plots.leakage_map(self).figure

    def roc(self) -> Figure:
        """True against false positive rate of a membership attack (matplotlib).

        Raises:
            UsageError: the run has no curve.
        """
        from privbench.report import plots

        return plots.roc([self]).figure

    def reconstructions(self) -> Figure:
        """Originals, rebuilt and guessed images: private, where records were rebuilt (matplotlib).

        Raises:
            UsageError: the run kept no images.
        """
        from privbench.report import plots

        return plots.reconstructions(self).figure

    def __str__(self) -> str:
        """The headline scores and what to doubt of them, as the command line prints them."""
        from privbench.report.printed import as_text  # it prints tables of many reports too

        return as_text(self)

    def save(self, folder: Path) -> None:
        """Write report.json, table.csv and the pictures; a file is there whole or not at all.

        Raises:
            StorageError: the folder cannot be written.
        """
        facts = _strict({"format": FORMAT, **asdict(replace(self, pictures=()))})
        del facts["pictures"]
        text = json.dumps(facts, indent=1, default=str, allow_nan=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_pictures(self.pictures, folder)
            write_whole(folder / "table.csv", self.table().to_csv(index=False))
            write_whole(folder / "report.json", text + "\n")
        except OSError as cause:
            raise StorageError(
                f"cannot write the report into '{folder}': {cause}; expected a writable folder with "
                "space left: choose another with out=FOLDER"
            ) from cause

    @classmethod
    def load(cls, file: Path, pictures: bool = True) -> Report:
        """Read a report.json, and the pictures beside it unless they are not wanted.

        Raises:
            StorageError: it is damaged, or of another format.
        """
        try:
            facts = json.loads(file.read_text())
            found = facts.pop("format")
            if found != FORMAT:
                raise StorageError(
                    f"'{file}' has report format {found}, this privbench reads {FORMAT}: "
                    "run it again with again=true"
                )
            return cls(
                names=Names(**facts.pop("names")),
                scores=tuple(_score(score) for score in facts.pop("scores")),
                references=tuple(_score(score) for score in facts.pop("references")),
                seats=tuple(SeatFacts(**seat) for seat in facts.pop("seats")),
                refusals=tuple(Refusal(**refusal) for refusal in facts.pop("refusals")),
                target=_target(facts.pop("target")),
                run=_run(facts.pop("run")),
                curves=tuple(_curve(curve) for curve in facts.pop("curves")),
                crowd=CrowdFacts.read(facts.pop("crowd")),
                pictures=load_pictures(file.parent) if pictures else (),
                **facts,
            )
        except (OSError, ValueError, TypeError, KeyError) as cause:
            raise StorageError(
                f"'{file}' is no whole report ({cause}): run it again with again=true"
            ) from cause

    def _score_row(self, score: Score) -> dict[str, Any]:
        verdict = "as centralized" if self.status == "same_as" else score.verdict()
        facts = self._facts_of(score.seat)
        column = facts.get("column", "")
        if score.seat == "worst" and self.run.worst_column:
            column = self.run.worst_column
        known = {f.name: getattr(score, f.name) for f in fields(score) if f.name in COLUMNS}
        seats = len(self.seats)
        return self._row(
            **known,
            **{**facts, "column": column},
            seats=seats,
            verdict=verdict,
            against_blind=score.against_blind(),
        )

    def _refusal_row(self, refusal: Refusal) -> dict[str, Any]:
        return self._row(
            status="not_applicable",
            reason=refusal.reason,
            seats=refusal.seats,
            column=refusal.column,
            verdict="not applicable",
        )

    def _facts_of(self, seat: str) -> dict[str, Any]:
        """Facts of one seat; for worst, median and best those that all seats share."""
        chosen = [s for s in self.seats if s.seat == seat or seat in SUMMARY]
        shared = {}
        for name in SEAT_FACTS:
            values = {getattr(facts, name) for facts in chosen}
            shared[name] = values.pop() if len(values) == 1 else None
        if chosen and shared["pairs"] is None:
            shared["pairs"] = "mixed"
        return shared

    def _row(self, **known: Any) -> dict[str, Any]:
        base = {
            **asdict(self.names),
            "status": self.status,
            "reason": self.reason,
            **asdict(self.target),
            **{f.name: getattr(self.run, f.name) for f in fields(self.run)},
            **known,
        }
        return {column: base.get(column) for column in COLUMNS}


class Warned(NamedTuple):
    """A warning and the regimes of the runs that gave it."""

    text: str
    regimes: tuple[str, ...]


def warnings_of(reports: Sequence[Report]) -> tuple[Warned, ...]:
    """The warnings of some runs, each once."""
    told: dict[str, set[str]] = {}
    for report in reports:
        for text in report.run.warnings:
            told.setdefault(text, set()).add(report.names.regime)
    return tuple(Warned(text, tuple(sorted(regimes))) for text, regimes in told.items())


def _strict(facts: Any) -> Any:
    """The same facts with words (``nan``, ``inf``) for the numbers that JSON cannot say."""
    if isinstance(facts, dict):
        return {key: _strict(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_strict(value) for value in facts]
    return str(facts) if isinstance(facts, float) and not math.isfinite(facts) else facts


def _score(facts: dict[str, Any]) -> Score:
    """A score as stored."""
    numbers = {name: float(facts[name]) for name in ("value", "low", "high", "blind")}
    return Score(**{**facts, **numbers})


def _target(facts: dict[str, Any]) -> Target:
    numbers = {key: float(x) for key, x in facts.items() if x in ("inf", "nan")}
    return Target(**{**facts, **numbers, "losses": tuple(facts.get("losses", ()))})


def _curve(facts: dict[str, Any]) -> Roc:
    """A curve as stored."""
    lines: dict[str, Any] = {name: tuple(facts.pop(name)) for name in ("fpr", "tpr", "low", "high")}
    return Roc(**facts, **lines)


def _run(facts: dict[str, Any]) -> Run:
    sentences = {key: tuple(facts[key]) for key in ("notices", "warnings")}
    return Run(**{**facts, **sentences})


def write_whole(file: Path, text: str) -> None:
    """Write beside the file first, then rename: a reader sees the old text or the new one."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(file)
