"""The rest of the sentence that refuses an attack: which threat, setting or regime would do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from privbench.contract import Threat, Topology
from privbench.threats.sketches import SKETCHES

Able = Callable[[Threat, Topology], bool]
"""Has a threat a seat, in a topology, that gives the attack all that it needs?"""

Threats = Mapping[str, Threat]


def instead(name: str, threat: Threat, topology: Topology, others: Threats, able: Able) -> str:
    """What to type instead, as the end of a sentence; empty where nothing would do.

    Args:
        name: what the refused threat is called.
        threat: with the settings of this run.
        topology: of the regime that was trained.
        others: every threat there is, by name, with the settings of its yaml.
    """
    here = _here(name, threat, topology, others, able)
    places = dict(_elsewhere(topology))
    far: list[str] = []
    if not here or not threat.seats(topology):
        far = [f"regime={home}" for home, at in places.items() if _does(others, name, at, able)]
    if not here and not far:
        far = _far(places, others, able)
    words = f"; it can be run with {_or(far)}" if far else ""
    return words + (f"; here it can be run with {_or(here)}" if here else "")


def _here(name: str, threat: Threat, topology: Topology, others: Threats, able: Able) -> list[str]:
    """Settings of the threat itself and other threats; else others with a setting of theirs."""
    found = [_typed(*each) for each in threat.stronger if able(_with(threat, *each), topology)]
    found += _plain(topology, others, able)
    strangers = {key: other for key, other in others.items() if key != name}
    return found or _strong(topology, strangers, able)


def _far(places: Mapping[str, Topology], others: Threats, able: Able) -> list[str]:
    """Threats under other regimes: those that would do as they are, else with a setting."""
    for ways in (_plain, _strong):
        found = [
            f"regime={home} {way}" for home, at in places.items() for way in ways(at, others, able)
        ]
        if found:
            return found
    return []


def _plain(topology: Topology, others: Threats, able: Able) -> list[str]:
    """Threats that would do as they are."""
    return [f"threat={name}" for name, threat in others.items() if able(threat, topology)]


def _strong(topology: Topology, others: Threats, able: Able) -> list[str]:
    """Threats that would do with a setting of theirs."""
    return [
        f"threat={name} {_typed(*setting)}"
        for name, threat in others.items()
        for setting in threat.stronger
        if able(_with(threat, *setting), topology)
    ]


def _elsewhere(topology: Topology) -> Iterator[tuple[str, Topology]]:
    """The other regimes that train, in outline."""
    for regime, sketch in SKETCHES.items():
        if regime not in (topology.regime, "given"):
            yield regime, replace(sketch.topology, encrypted=topology.encrypted)


def _does(others: Threats, name: str, topology: Topology, able: Able) -> bool:
    return name in others and able(others[name], topology)


def _with(threat: Threat, key: str, value: object) -> Threat:
    changed: dict[str, Any] = {key: value}
    return replace(threat, **changed)


def _typed(key: str, value: object) -> str:
    return f"threat.{key}={str(value).lower() if isinstance(value, bool) else value}"


def _or(words: Iterable[str]) -> str:
    return " or ".join(words)
