"""Devices, links and verdicts of a leakage map: what is drawn, before where."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from privbench.errors import UsageError
from privbench.report.crowd import Block, CrowdFacts, Stage
from privbench.report.plots.facts import Scale, about, leakage, seats_of, verdict
from privbench.report.plots.style import plain, slug
from privbench.report.report import Report
from privbench.scoring.score import Score

LINKS = 200
"""Links that a map shows at most."""
COORDINATOR = "coordinator"


@dataclass(frozen=True)
class Spot:
    """Someone who sees something: a device, a link, the coordinator.

    Args:
        name: as the reports have it.
        gid: what a page may call it.
        label: short, for drawing: the number of a device.
        score: None where it was not attacked.
        verdict: of the score; else why there is none.
    """

    name: str
    gid: str
    label: str
    score: Score | None
    verdict: str


@dataclass(frozen=True)
class Link(Spot):
    """A spot between two devices, and the bytes per sample that pass."""

    one: str = ""
    other: str = ""
    nbytes: float = 0.0


@dataclass(frozen=True)
class Crowd:
    """All that a map shows.

    Args:
        stages, blocks: the sliced network.
        devices: by name, in order.
        links: those drawn, least telling first; ``left_out``: how many are not.
        coordinator: None where no report speaks of it.
        scale: colours.
        numbers: one row a device, link and coordinator.
    """

    stages: tuple[Stage, ...]
    blocks: tuple[Block, ...]
    devices: Mapping[str, Spot]
    links: tuple[Link, ...]
    left_out: int
    coordinator: Spot | None
    scale: Scale
    numbers: pd.DataFrame


def crowd_of(report: Report, links: Report | None, coordinator: Report | None) -> Crowd:
    """What the map of a report shows.

    Raises:
        UsageError: it sliced no network, attacked no single device, or the goals differ.
    """
    _same_goal(report, links, coordinator)
    facts = report.crowd
    if facts is None:
        raise UsageError(
            f"a leakage map needs a sliced network, and '{about(report)}' has none: "
            "run it with regime=slicenet threat=host"
        )
    names = list(dict.fromkeys([*(x.party for x in facts.loads), *(b.party for b in facts.blocks)]))
    scores = seats_of(report)
    if not set(names) & set(scores):
        raise UsageError(
            f"a leakage map needs a score of each device, and '{about(report)}' has none: "
            "run it with threat=host or threat=owner"
        )
    hosting = {block.party for block in facts.blocks}
    devices: dict[str, Spot] = {}
    taken: set[str] = {COORDINATOR}
    for place, name in enumerate(names):
        gid = slug(name)
        if not gid or gid in taken:
            gid = f"party-{place}"
        taken.add(gid)
        score = scores.get(name)
        word = _word(report, score, name in hosting)
        devices[name] = Spot(name, gid, _label(name), score, word)
    shown, left_out = _links(facts, links)
    spot = _coordinator(coordinator)
    known = [spot.score for spot in devices.values() if spot.score]
    return Crowd(
        facts.stages, facts.blocks, devices, shown, left_out, spot, Scale.of(known),
        _numbers(facts, devices, shown, spot),
    )  # fmt: skip


def _same_goal(report: Report, *others: Report | None) -> None:
    """One colour, one meaning."""
    for other in others:
        if other and other.names.goal != report.names.goal:
            raise UsageError(
                f"a leakage map shows one goal: '{about(other)}' is about {other.names.goal}, "
                f"'{about(report)}' about {report.names.goal}"
            )


def _label(name: str) -> str:
    """The number of a device, else its name, cut."""
    found = re.search(r"(\d+)$", name)
    return found[1][-5:] if found else plain(name, 6)


def _word(report: Report, score: Score | None, hosts: bool) -> str:
    if score is not None:
        return verdict(report, score)
    return "not attacked" if hosts or report.names.threat != "host" else "hosts nothing"


def _links(facts: CrowdFacts, report: Report | None) -> tuple[tuple[Link, ...], int]:
    """The links that say most: those that were attacked first, then those with most traffic."""
    scores = seats_of(report) if report else {}

    def link(one: str, other: str, nbytes: float) -> Link:
        score = scores.get(f"{one}–{other}") or scores.get(f"{other}–{one}")
        word = verdict(report, score) if report and score else "not attacked"
        gid = f"link-{_end(one)}-{_end(other)}"
        return Link(f"{one}–{other}", gid, "", score, word, one, other, nbytes)

    every = [link(each.one, each.other, each.nbytes) for each in facts.traffic]
    kept = heapq.nlargest(LINKS, every, key=_telling)
    return tuple(reversed(kept)), len(every) - len(kept)


def _telling(link: Link) -> tuple[bool, float, float]:
    return link.score is not None, leakage(link.score) if link.score else 0.0, link.nbytes


def _end(name: str) -> str:
    """A device in the gid of a link."""
    return slug(name.removeprefix("device-"))


def _coordinator(report: Report | None) -> Spot | None:
    if report is None:
        return None
    scores = seats_of(report)
    score = scores.get(COORDINATOR) or next(iter(scores.values()), None)
    word = verdict(report, score) if score else "not attacked"
    return Spot(COORDINATOR, COORDINATOR, COORDINATOR, score, word)


def _numbers(
    facts: CrowdFacts,
    devices: Mapping[str, Spot],
    links: tuple[Link, ...],
    coordinator: Spot | None,
) -> pd.DataFrame:
    """What the map shows, a row each."""
    layers: dict[str, dict[str, None]] = defaultdict(dict)
    units: dict[str, int] = defaultdict(int)
    sent: dict[str, float] = defaultdict(float)
    for block in facts.blocks:
        layers[block.party][block.layer] = None
        units[block.party] += block.units
    for each in facts.traffic:
        sent[each.one] += each.nbytes
        sent[each.other] += each.nbytes
    loads = {load.party: load for load in facts.loads}
    rows = []
    for name, spot in devices.items():
        row = {
            "kind": "device",
            **_row(spot),
            "layers": " ".join(layers[name]),
            "units": units[name],
        }
        if name in loads:
            load = loads[name]
            row |= {"flops": load.flops, "flops_budget": load.flops_budget,
                    "memory": load.memory, "memory_budget": load.memory_budget}  # fmt: skip
        rows.append({**row, "bytes_per_sample": sent[name]})
    for link in reversed(links):
        rows.append({"kind": "link", **_row(link), "bytes_per_sample": link.nbytes})
    if coordinator:
        rows.append({"kind": "coordinator", **_row(coordinator)})
    return pd.DataFrame(rows, columns=list(COLUMNS))


COLUMNS = (
    "kind", "name", "layers", "units", "flops", "flops_budget", "memory", "memory_budget",
    "bytes_per_sample", "metric", "value", "low", "high", "blind", "n", "verdict",
)  # fmt: skip
"""Of the numbers of a map."""


def _row(spot: Spot) -> dict[str, Any]:
    score = spot.score
    known = {name: getattr(score, name) for name in COLUMNS[9:15]} if score else {}
    return {"name": spot.name, **known, "verdict": spot.verdict}
