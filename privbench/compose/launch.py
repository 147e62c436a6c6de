"""Words to runs: one, or many on one of Hydra's launchers."""

from __future__ import annotations

import fnmatch
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from privbench import experiment, plugins
from privbench.compose.outlets import Outlets, outlets_of
from privbench.compose.plainly import plain_errors
from privbench.compose.plans import (
    Given,
    bare_names,
    check_shared,
    check_taken_in,
    device_of,
    plain_part,
    plan_of,
)
from privbench.compose.words import Words
from privbench.compose.workers import Outcome, Watcher, granted, spread
from privbench.errors import NotApplicable, PrivbenchError, UsageError
from privbench.plan import Plan
from privbench.report.report import Names, Report
from privbench.report.study import StudyTable, save_row, study_folder
from privbench.store import check_writable

PASSING = ("study=", "out=", "again=", "debug=", "workers=", "report.", "sink", "hydra")
"""Words that change no number: launches that differ in these alone share a table."""

MOST_ROWS = 4  # at a time, of themselves: each may need a GiB
LONGEST = 100  # characters of a folder's name


class Single(NamedTuple):
    """One run to be carried out, and what becomes of its report."""

    plan: Plan
    outlets: Outlets


class Launched(NamedTuple):
    """The folder of all runs, that of the table among the studies, what becomes of the reports."""

    out: Path
    folder: str
    outlets: Outlets


def one(asked: Words, given: Given | None = None) -> Single:
    """The plan of one run.

    Raises:
        UsageError, PluginError: the words do not fit together.
    """
    with plain_errors():
        loader = ConfigLoaderImpl(config_search_path=_search_path())
        config = loader.load_configuration("run", list(asked.words), run_mode=RunMode.RUN)
    check_taken_in(config, asked.words)
    outlets = outlets_of(plain_part(config, "report", "sink"))
    plan = plan_of(config, config.hydra.runtime.choices, given or Given(), asked.words)
    return Single(plan, outlets)


def many(asked: Words) -> Launched:
    """Carry out a sweep or study.

    On Hydra's basic launcher rows run in a few forked processes of ours; any other launcher does
    it its own way.

    Raises:
        UsageError: the words do not fit together; nothing has run.
        StorageError: the folder cannot be written.
    """
    with plain_errors(), _hydra() as hydra:
        folder = folder_of(asked)
        overrides = [*asked.words, "hydra.mode=MULTIRUN", f"folder='{folder}'"]
        master = hydra.compose_config("run", overrides, run_mode=RunMode.MULTIRUN)
        if asked.rows:
            overrides += _confined(hydra, master, asked)
            master = hydra.compose_config("run", overrides, run_mode=RunMode.MULTIRUN)
        jobs = _count(hydra, master)
        outlets = outlets_of(plain_part(master, "report", "sink"))
        check_shared(master)
        check_writable(Path(str(master.out)))
        if _basic(master.hydra):
            _here(hydra, master)
        else:
            overrides.append(f"hydra.callbacks.table.jobs={jobs}")
            hydra.multirun("run", job, overrides, with_log_configuration=False)
    return Launched(Path(str(master.out)), folder, outlets)


def _here(hydra: Hydra, master: DictConfig) -> None:
    """Rows on this machine, a few at a time."""
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    (batch,) = BasicSweeper.split_arguments(parser.parse_overrides(_swept(master)), None)

    def composed(number: int) -> DictConfig:
        config = hydra.config_loader.load_sweep_config(master, list(batch[number]))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(config)
        return config

    def row(number: int) -> str:
        try:
            with plain_errors():
                config = composed(number)
        except PrivbenchError as error:
            return _broken(master, batch[number], number, str(error))
        job(config)
        return str(config.row) or titles[number]

    def over(outcome: Outcome) -> None:
        if outcome.lost:
            _broken(master, batch[outcome.number], outcome.number, outcome.lost)
        table.ended(outcome.title or titles[outcome.number], outcome.seconds, outcome.number)

    titles = _titles(batch)
    composed(0)  # what is wrong with every row is said once, before any runs
    table = StudyTable(str(master.out), str(master.folder), len(batch))

    def moves(number: int, stage: str, done: int, total: int) -> None:
        table.moved(number, f"{titles[number]}: {stage}", done, total)

    table.begin()
    spread(len(batch), _workers(master), row, Watcher(over, moves))
    table.close()


def _confined(hydra: Hydra, master: DictConfig, asked: Words) -> list[str]:
    """Words that leave of a study the rows whose names begin with, or match, one of ``asked.rows``.

    Raises:
        UsageError: one of those matches nothing.
    """
    parser = OverridesParser.create(hydra.config_loader)
    (choice,) = parser.parse_overrides(
        [word for word in _swept(master) if word.startswith("+row/")]
    )
    names = [str(name) for name in choice.sweep_string_iterator()]
    kept = set()
    for pattern in asked.rows:
        found = fnmatch.filter(names, pattern if "*" in pattern else f"{pattern}*")
        if not found:
            raise UsageError(
                f"rows={pattern} is none of study={asked.study}; expected the beginning of a name, or a "
                f"pattern with *, of: {', '.join(names)}"
            )
        kept.update(found)
    left = ",".join(name for name in names if name in kept)
    return ["hydra.sweeper.params=null", f"+{choice.key_or_group}=choice({left})"]


def folder_of(asked: Words) -> str:
    """Name of the folder of a launch's table: other words, another table; none is written over."""
    said = [word.lstrip("+") for word in asked.words]
    kept = [word for word in said if not word.startswith(PASSING)]
    rows = [f"rows={','.join(asked.rows)}"] if asked.rows else []
    name = re.sub(r"[^\w.,=+-]", "-", "+".join([asked.study or "sweep", *rows, *kept]))
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _titles(batch: Sequence[Sequence[str]]) -> list[str]:
    """What rows are called before they are composed: by name in a study, else by the words that differ."""
    shared = set.intersection(*map(set, batch)) if len(batch) > 1 else set()
    found = []
    for words in batch:
        named = (word.partition("=")[2] for word in words if word.startswith("+row/"))
        said = [w.lstrip("+") for w in words if w not in shared and not w.startswith("folder=")]
        found.append(next(named, " ".join(said)) or "run")
    return found


def _broken(master: DictConfig, overrides: Sequence[str], number: int, reason: str) -> str:
    """A failed row of which nothing but its words is known."""
    names = Names(study=str(master.study), row=" ".join(overrides))
    report = Report(names, "failed", reason)
    save_row(report, study_folder(Path(str(master.out)), str(master.folder)), number)
    return names.row


def _basic(hydra: Any) -> bool:
    """Neither launcher nor sweeper was chosen."""
    return all(
        str(part._target_).startswith("hydra._internal.core_plugins.basic_")
        for part in (hydra.launcher, hydra.sweeper)
    )


def _workers(master: DictConfig) -> int:
    """How many rows run at a time."""
    most = granted(master.workers, int(master.threads))
    if master.debug is True or device_of(str(master.device)) == "cuda":
        return 1  # errors go straight up; and one process has the GPU
    return min(MOST_ROWS, most) if master.workers == "auto" else most


def job(config: DictConfig) -> str:
    """One row of a sweep or study: never raises, unless ``debug``. Returns its status."""
    hydra = HydraConfig.get()
    report = _row(config, hydra.runtime.choices, list(hydra.overrides.task))
    folder = study_folder(Path(str(config.out)), str(config.folder))
    save_row(report, folder, int(hydra.job.num))
    return report.status


def _row(config: DictConfig, choices: Mapping[str, Any], words: Sequence[str]) -> Report:
    try:
        plan = plan_of(config, choices, Given(), words)
        # rows share what a run alone would have; how many another launcher runs is not known
        own = plan.workers // _workers(config) if _basic(HydraConfig.get()) else 1
        return experiment.run_row(replace(plan, workers=max(1, own)))
    except NotApplicable as error:
        return Report(bare_names(config, choices), "not_applicable", str(error))
    except Exception as error:
        if config.debug is True:
            raise
        known = isinstance(error, PrivbenchError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        return Report(bare_names(config, choices), "failed", reason)


def is_sweep(words: Sequence[str]) -> bool:
    """Do the words ask for more than one run?"""
    with plain_errors():
        parsed = OverridesParser.create().parse_overrides(list(words))
    return any(override.is_sweep_override() for override in parsed)


def _swept(master: DictConfig) -> list[str]:
    """The words that sweep, those of the configuration first."""
    parameters = master.hydra.sweeper.get("params") or {}
    words = [f"{key}={value}" for key, value in parameters.items()]
    return words + list(master.hydra.overrides.task)


def _count(hydra: Hydra, master: DictConfig) -> int:
    """How many jobs a sweep has, 0 = only its sweeper knows.

    Raises:
        UsageError: a glob matches nothing, which would run nothing in silence.
    """
    counts = {}
    for override in OverridesParser.create(hydra.config_loader).parse_overrides(_swept(master)):
        if not override.is_sweep_override():
            continue
        if not override.is_discrete_sweep():
            return 0
        counts[override.key_or_group] = len(list(override.sweep_string_iterator()))
        if not counts[override.key_or_group]:
            raise UsageError(f"'{override.input_line}' matches nothing; see privbench --help")
    return math.prod(counts.values())


def _search_path() -> Any:
    version.setbase("1.3")
    plugins.register()
    return create_config_search_path(None)


@contextmanager
def _hydra() -> Iterator[Hydra]:
    """Hydra for a sweep; whatever Hydra the caller had started before stands again afterwards."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2("privbench", _search_path())
    finally:
        GlobalHydra.instance().clear()
        if before is not None:
            GlobalHydra.instance().initialize(before)
