"""Which of many runs are read whole, for figures and for how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from privbench.errors import StorageError
from privbench.report.folder import Stored, lines_of
from privbench.report.report import Report

DRAWN = 40
"""Runs that are read whole, at most."""


class Chosen(NamedTuple):
    """Reports with everything in them, and a sentence for each that could not be read."""

    reports: tuple[Report, ...]
    unread: tuple[str, ...]


def read_whole(reports: Sequence[Report]) -> Chosen:
    """All of few reports; of many the first of each kind."""
    places = list(range(len(reports)))
    if len(reports) > DRAWN:
        places = _first_of_each_kind(reports)
    read, unread = [], []
    for place in places:
        try:
            report = reports[place]
        except StorageError as error:
            unread.append(str(error))
            continue
        read.append(report)
        if isinstance(reports, Stored):
            unread += reports.problems(place)
    return Chosen(tuple(read), tuple(unread))


def _first_of_each_kind(reports: Sequence[Report]) -> list[int]:
    """The first run of each regime, defence, threat and attack; no more than ``DRAWN``."""
    kind = ["data", "model", "regime", "defense", "threat", "attack", "variant"]
    first = lines_of(reports).group_by(kind).aggregate([("run", "min")])
    return sorted(first["run_min"].to_pylist())[:DRAWN]
