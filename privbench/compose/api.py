"""One run from Python."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from privbench import experiment
from privbench.compose.launch import is_sweep, one
from privbench.compose.outlets import Shown, run_folder, to_stderr
from privbench.compose.plans import Given
from privbench.compose.words import Words, understood
from privbench.contract import Net
from privbench.data.source import DataSource
from privbench.errors import UsageError
from privbench.report.report import Report

if TYPE_CHECKING:
    from torch import nn


def run(
    *words: str,
    model: type[nn.Module] | Callable[[], nn.Module] | nn.Module | Net | None = None,
    data: DataSource | None = None,
    members: tuple[Any, Any] | None = None,
    non_members: tuple[Any, Any] | None = None,
) -> Report:
    """One run, from Python.

    Args:
        words: as on the command line, for example ``"attack=lira"``, ``"seed=3"``.
        model: a class or factory without arguments; or a trained network, for ``regime=given``.
        data: made by ``privbench.arrays(x, y)``.
        members, non_members: ``(x, y)`` each, of a model trained elsewhere (implies
            ``regime=given``).

    Returns:
        The report; ``report.table()`` gives the scores.

    Raises:
        PrivbenchError: what went wrong and what to do about it.
    """
    if not all(isinstance(word, str) for word in words):
        raise UsageError('words are strings, one each: privbench.run("attack=lira", "seed=3")')
    if data is not None and not isinstance(data, DataSource):
        raise UsageError(f"data is a {type(data).__name__}; expected privbench.arrays(x, y)")
    for name, pair in (("members", members), ("non_members", non_members)):
        if pair is not None and not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise UsageError(f"{name} is a {type(pair).__name__}; expected {name}=(x, y)")
    asked = understood(words, multirun=True)
    if asked.study or is_sweep(asked.words):
        raise UsageError("privbench.run is one run; start studies and sweeps on the command line")
    chosen = list(asked.words)
    if members is not None or non_members is not None:
        if members is None or non_members is None or data is not None:
            raise UsageError("members=(x, y) and non_members=(x, y) belong together, without data=")
        from privbench.data.arrays import members as of_members

        data = of_members(members, non_members)
        if not any(word.startswith("regime=") for word in chosen):
            chosen.append("regime=given")
    plan, outlets = one(Words(tuple(chosen)), _given(model, data))
    report = experiment.run(plan)
    if report.status != "not_applicable":
        shown = Shown((report,), "one run")
        outlets.mirror(shown, "", run_folder(plan.out, report), to_stderr)
    return report


def _given(model: Any, data: DataSource | None) -> Given:
    """Python objects as data; a class of the main script is known to this process alone."""
    if model is None:
        return Given(data=data)
    from privbench.models.described import as_net

    net = as_net(model)
    private = f"{net.spec.target} {uuid.uuid4()}" if "__main__." in str(net.spec) else ""
    return Given(net, data, private)
