"""Words to runs: one, or many on one of Hydra's launchers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from privbench import experiment, plugins
from privbench.compose.plainly import plain_errors
from privbench.compose.plans import Given, bare_names, check_shared, plan_of
from privbench.compose.words import Words
from privbench.errors import NotApplicable, PrivbenchError, UsageError
from privbench.plan import Plan
from privbench.report.report import Report
from privbench.report.study import save_row


def one(asked: Words, given: Given | None = None) -> Plan:
    """The plan of one run.

    Raises:
        UsageError, PluginError: the words do not fit together.
    """
    with plain_errors():
        loader = ConfigLoaderImpl(config_search_path=_search_path())
        config = loader.load_configuration("run", list(asked.words), run_mode=RunMode.RUN)
    return plan_of(config, config.hydra.runtime.choices, given or Given())


def many(asked: Words) -> Path:
    """Carry out a sweep or study on Hydra's launcher; the folder of all runs.

    Raises:
        UsageError: the words do not fit together; nothing has run.
        StorageError: the folder cannot be written.
    """
    with plain_errors(), _hydra() as hydra:
        overrides = [*asked.words, "hydra.mode=MULTIRUN"]
        master = hydra.compose_config("run", overrides, run_mode=RunMode.MULTIRUN)
        jobs = _count(hydra, master)
        check_shared(master)
        overrides.append(f"hydra.callbacks.table.jobs={jobs}")
        hydra.multirun("run", job, overrides, with_log_configuration=False)
    return Path(str(master.out))


def job(config: DictConfig) -> str:
    """One row of a sweep or study: never raises, unless ``debug``. Returns its status."""
    hydra = HydraConfig.get()
    report = _row(config, hydra.runtime.choices)
    save_row(report, Path(str(config.out)), int(hydra.job.num))
    return report.status


def _row(config: DictConfig, choices: Mapping[str, Any]) -> Report:
    try:
        return experiment.run_row(plan_of(config, choices, Given()))
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


def _count(hydra: Hydra, master: DictConfig) -> int:
    """How many jobs a sweep has, 0 = only its sweeper knows.

    Raises:
        UsageError: a glob matches nothing, which would run nothing in silence.
    """
    parameters = master.hydra.sweeper.get("params") or {}
    words = [f"{key}={value}" for key, value in parameters.items()]
    words += list(master.hydra.overrides.task)
    counts = {}
    for override in OverridesParser.create(hydra.config_loader).parse_overrides(words):
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
