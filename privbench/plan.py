"""A plan: everything that decides one run, as objects; and its fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from privbench.contract import Actor, Attack, MessageDefense, Net, Spec, Threat
from privbench.data.source import DataSource
from privbench.regimes.base import Regime
from privbench.report.report import Names
from privbench.store import digest_of_rooms, digest_of_source, fingerprint
from privbench.wire.capture import Capture

COVERED = ("privbench.", "torch.")  # by the digests of rooms, and by torch's version
TRAINING_ROOMS = ("contract", "wire", "data", "models", "slicenet", "regimes")
ACTING_ROOMS = ("toolkit", "threats", "seating")  # they train too, where an attack is active
PLACES = ("root", "path", "download")  # of data: where the bytes are, not which
VIEWING_ROOMS = ("threats", "seating", "views", "positions", "oracle", "equality", "experiment")
SCORING_ROOMS = ("contract", "toolkit", "scoring", *VIEWING_ROOMS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """One run.

    Args:
        victims: how many samples a seat's attack is asked to rebuild.
        guesses: share of the canaries about which an audit guesses, fixed before anything is seen.
        encrypted: link taps see sizes and times only.
        device: ``cpu`` or ``cuda`` (resolved).
        seal: ``process`` or ``inline``.
        workers: processes that may train shadow models side by side; no result depends on it.
        out: where targets, fits and runs lie.
        again: score anew even if a finished report lies there.
        debug: let errors through, with their traceback.
        images: keep some records beside what attacks made of them, for the report.
        command: what to type for this run, for the report.
        config: the composed configuration, for the report.
        others: makes every other threat there is, by name, for the sentence that says who would do.
        private_name: set when a class cannot be imported by name; then nothing is reused.
    """

    names: Names
    data: DataSource
    model: Net
    regime: Regime
    threat: Threat
    attack: Attack
    defenses: tuple[MessageDefense, ...] = ()
    capture: Capture = field(default_factory=Capture)
    seed: int = 0
    victims: int = 200
    guesses: float = 0.5
    encrypted: bool = False
    threads: int = 1
    device: str = "cpu"
    seal: str = "process"
    workers: int = 1
    out: Path = Path("runs")
    again: bool = False
    debug: bool = False
    images: bool = True
    command: str = ""
    config: str = ""
    others: Callable[[], Mapping[str, Threat]] = dict
    private_name: str = ""

    def target_print(self, data_digest: str) -> str:
        """Fingerprint of the training half: equal ones give the same target."""
        return fingerprint(
            data_digest,
            digest_of_rooms(*TRAINING_ROOMS),
            str(torch.__version__),
            [canonical(part) for part in (_placeless(self.data), self.model, self.regime)],
            canonical(self.defenses),
            canonical(self.capture),
            self._acting(),
            [self.seed, self.threads, self.device, self.private_name],
        )

    @property
    def acts(self) -> bool:
        """Does the attack stand on the wire while the model is trained?"""
        return self.attack.actor is not None and self.threat.tampers

    def _acting(self) -> list[Any]:
        """What an active attack adds to the training half: itself, and the seat that it takes."""
        if not self.acts:
            return []
        kinds = (type(self.attack), cast(type[Actor], self.attack.actor))
        sources = [digest_of_source(kind) for kind in kinds]
        settings = [canonical(self.attack), canonical(self.threat), self.encrypted]
        return [*settings, *sources, digest_of_rooms(*ACTING_ROOMS)]

    def row_print(self, data_digest: str) -> str:
        """Fingerprint of the whole run."""
        return fingerprint(
            self.target_print(data_digest),
            digest_of_rooms(*SCORING_ROOMS),
            [canonical(part) for part in (self.names, self.threat, self.attack)],
            [digest_of_source(type(self.attack)), self.victims, self.encrypted, self.seal],
            self.guesses,
        )


def canonical(thing: Any) -> Any:
    """An object as JSON: classes by import name (and source, where the class is a stranger's)."""
    if isinstance(thing, Tensor):
        digest = hashlib.sha256(thing.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        return [str(thing.dtype), list(thing.shape), digest]
    if isinstance(thing, Spec):
        return ["spec", thing.target, source_of(thing.target), canonical(thing.kwargs)]
    if is_dataclass(thing) and not isinstance(thing, type):
        kind = type(thing)
        name = f"{kind.__module__}.{kind.__qualname__}"
        values = {f.name: canonical(getattr(thing, f.name)) for f in fields(thing)}
        return [name, source_of(name), values]
    if isinstance(thing, Mapping):
        return {str(key): canonical(value) for key, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [canonical(value) for value in thing]
    if isinstance(thing, frozenset | set):
        return sorted(json.dumps(canonical(value)) for value in thing)
    if isinstance(thing, Path):
        return str(thing)
    return thing


def _placeless(data: DataSource) -> dict[str, Any]:
    """What a data set is, wherever its files lie: their content is known by its digest."""
    values = {f.name: getattr(data, f.name) for f in fields(data) if f.name not in PLACES}
    kind = type(data)
    return {"kind": f"{kind.__module__}.{kind.__qualname__}", **values}


def source_of(name: str) -> str:
    """Source digest of a class by its import name; empty where a digest of our rooms covers it."""
    return "" if name.startswith(COVERED) else digest_of_source(name)
