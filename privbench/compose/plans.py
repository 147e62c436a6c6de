"""A composed configuration to a plan."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from privbench.compose.building import build, build_as
from privbench.compose.plainly import plain_errors
from privbench.compose.workers import granted
from privbench.contract import Attack, LearningDefense, MessageDefense, Net, Spec, Threat
from privbench.data.source import DataSource
from privbench.errors import UsageError
from privbench.models.fits import check_fits
from privbench.plan import Plan
from privbench.plugins import listing
from privbench.regimes.base import Regime
from privbench.report.report import Names

TAKEN_IN = ("augmentation", "crowd", "slicer", "tiling", "faults", "engine")
"""Keys of what a regime takes in, if it has a use for it."""

OUTSIDE = (
    "hydra", "out", "workers", "again", "debug", "row", "study", "folder", "report", "sink", *TAKEN_IN,
)  # fmt: skip
"""Keys that do not belong to what a run is: paths and names, and what a regime has taken in."""

SEALS = ("process", "inline")
LARGEST = 2**63 - 1  # a seed is a word of 64 bits


@dataclass(frozen=True, eq=False)
class Given:
    """Python objects that stand in for words. ``private`` names a class that only this process has."""

    model: Net | None = None
    data: DataSource | None = None
    private: str = ""


def plan_of(
    config: DictConfig, choices: Mapping[str, Any], given: Given, words: Sequence[str] = ()
) -> Plan:
    """A plan from a composed configuration.

    Args:
        config: composed; interpolations are resolved here.
        choices: which option each group has.
        words: what was typed, for the report.
        given: Python objects that take the place of ``data`` and ``model``.

    Raises:
        UsageError, PluginError: a setting or class is wrong.
    """
    plain = _plain(config)
    regime = build_as(Regime, plain["regime"], "regime")
    regime, defenses = _defended(regime, plain.get("defense") or {})
    attack = build_as(Attack, plain["attack"], "attack")
    return Plan(
        names=_names(plain, choices, attack.goal, given),
        data=given.data or build_as(DataSource, plain["data"], "data"),
        model=given.model or network(plain["model"]),
        regime=regime,
        threat=build_as(Threat, plain["threat"], "threat"),
        attack=attack,
        defenses=defenses,
        capture=build(_capture(plain), "capture"),
        seed=_whole(plain, "seed", 0),
        victims=_whole(plain, "victims", 1),
        guesses=_share(plain["audit"], "guesses", "audit."),
        encrypted=_switch(plain, "encrypted"),
        threads=_whole(plain, "threads", 1),
        device=device_of(str(plain["device"])),
        seal="inline" if given.private else _among(plain, "seal", SEALS),
        workers=granted(plain["workers"], _whole(plain, "threads", 1)),
        out=Path(str(plain["out"])),
        again=_switch(plain, "again"),
        debug=_switch(plain, "debug"),
        images=_switch(plain["report"], "images", "report."),
        command=command_of(words),
        config=_told(plain, given),
        others=threats,
        private_name=given.private,
    )


def _told(plain: Mapping[str, Any], given: Given) -> str:
    """The configuration for the report; objects that were handed over by their names."""
    told = {key: value for key, value in plain.items() if key not in OUTSIDE}
    if given.model is not None:
        told["model"] = {"_target_": given.model.spec.target, **given.model.spec.kwargs}
    if given.data is not None:
        told["data"] = {"handed over": given.data.name, "split": given.data.split}
    return OmegaConf.to_yaml(told)


def _capture(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {"_target_": "privbench.wire.capture.Capture", **plain["capture"]}


def threats() -> Mapping[str, Threat]:
    """Every threat that is installed, with the settings of its yaml."""
    found = listing().get("threat", {})
    settings = {name: OmegaConf.to_container(OmegaConf.load(c.path)) for name, c in found.items()}
    return {name: build_as(Threat, plain, f"threat={name}") for name, plain in settings.items()}


def check_taken_in(config: DictConfig, words: Sequence[str]) -> None:
    """What is asked for of one run must be of use to its regime; rows of a study share their words.

    Raises:
        UsageError: the regime has no use for it.
    """
    name = config.hydra.runtime.choices.regime
    for word in words:
        key = re.split(r"[.=]", word.lstrip("+~"))[0]
        if key not in TAKEN_IN or key in config.regime:
            continue
        regimes = listing()["regime"].items()
        users = [f"regime={n}" for n, c in regimes if f"${{{key}}}" in c.path.read_text("utf-8")]
        raise UsageError(
            f"'{word.lstrip('+')}' would change nothing: regime={name} has no {key}; leave it out, or choose "
            f"{' or '.join(users)}"
        )


def check_shared(config: DictConfig) -> None:
    """What all rows of a study share is tried once before any runs: plain keys, data, network.

    Raises:
        PrivbenchError: every row would fail for that reason.
    """
    numbers, switches = {"seed": 0, "victims": 1, "threads": 1}, ("encrypted", "again", "debug")
    rest = ("seal", "device", "capture", "data", "model")
    shared = plain_part(config, *numbers, *switches, *rest)
    for key, least in numbers.items():
        _whole(shared, key, least)
    for key in switches:
        _switch(shared, key)
    _among(shared, "seal", SEALS)
    device_of(str(shared["device"]))
    build(_capture(shared), "capture")
    samples = build_as(DataSource, shared["data"], "data").load().samples
    classes = 1 if samples.y is None else int(samples.y.max()) + 1
    check_fits(network(shared["model"]), samples.x.shape[1:], classes)


def network(settings: Mapping[str, Any]) -> Net:
    """A network as data; it is imported and built here once, so that a wrong name fails early."""
    arguments = {key: value for key, value in settings.items() if key != "_target_"}
    net = Net(Spec(settings["_target_"], arguments))
    build(settings, "model")
    return net


def _defended(
    regime: Regime, chosen: Mapping[str, Any]
) -> tuple[Regime, tuple[MessageDefense, ...]]:
    """The regime with its learning defense, and the message defenses in their order."""
    messages = []
    for name, settings in chosen.items():
        where = f"defense.{name}"
        if not isinstance(settings, Mapping) or "_target_" not in settings:
            raise UsageError(f"{where} has settings but is not chosen; add it: defense=[{name}]")
        made = build(settings, where)
        if isinstance(made, MessageDefense):
            messages.append(made)
        elif not isinstance(made, LearningDefense):
            raise UsageError(f"{where}: {type(made).__name__} is no defense of privbench.contract")
        elif regime.learning is not None:
            raise UsageError(
                f"two learning defenses at once: {type(regime.learning).__name__} (from the regime) "
                f"and {type(made).__name__} (defense={name}); choose one"
            )
        else:
            regime = replace(regime, learning=made)
    return regime, tuple(messages)


def _names(plain: Mapping[str, Any], choices: Mapping[str, Any], goal: str, given: Given) -> Names:
    """What the run is called in tables."""
    model, data = str(choices["model"]), str(choices["data"])
    if given.model or model == "own":
        target = given.model.spec.target if given.model else str(plain["model"]["_target_"])
        model = target.rpartition(".")[2]
    return Names(
        study=str(plain["study"]),
        row=str(plain["row"]),
        data=given.data.name if given.data else data,
        model=model,
        regime=_regime(choices, str(plain["variant"])),
        defense="+".join(plain.get("defense") or {}),
        threat=str(choices["threat"]),
        attack=str(choices["attack"]),
        variant=str(plain["variant"]),
        goal=goal,
    )


def _regime(choices: Mapping[str, Any], variant: str) -> str:
    """Name of the regime; ``fedavg_one_sample`` in a row of variant ``one_sample`` is ``fedavg``, and
    ``centralized_matched`` in one of ``matched_8`` is ``centralized``."""
    name = str(choices["regime"])
    for ending in (f"_{variant}", f"_{variant.partition('_')[0]}"):
        if variant and name.endswith(ending):
            return name.removesuffix(ending)
    return name


def bare_names(config: DictConfig, choices: Mapping[str, Any]) -> Names:
    """Names of a row whose plan could not be made."""
    names = {key: str(choices[key]) for key in ("data", "model", "threat", "attack")}
    names["regime"] = _regime(choices, str(config.variant))
    defense = "+".join(config.get("defense") or {})
    own = {key: str(config[key]) for key in ("study", "row", "variant")}
    return Names(**names, **own, defense=defense)


def command_of(words: Sequence[str]) -> str:
    """What to type for a run, or for the study that it is a row of."""
    typed = [word for word in words if not word.startswith(("+row/", "folder="))]
    return shlex.join(["privbench", *typed])


def device_of(wanted: str) -> str:
    """``cpu`` or ``cuda``."""
    there = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if there else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise UsageError(f"device={wanted}; expected auto, cpu or cuda")
    if wanted == "cuda" and not there:
        raise UsageError("device=cuda, but torch finds no CUDA device here; use device=auto or cpu")
    return wanted


def _whole(plain: Mapping[str, Any], key: str, least: int) -> int:
    value = plain[key]
    if type(value) is not int or not least <= value <= LARGEST:
        raise UsageError(f"{key}={value}; expected a whole number, at least {least}")
    return value


def _switch(plain: Mapping[str, Any], key: str, within: str = "") -> bool:
    if not isinstance(plain[key], bool):
        raise UsageError(f"{within}{key}={plain[key]}; expected true or false")
    return bool(plain[key])


def _share(plain: Mapping[str, Any], key: str, within: str = "") -> float:
    value = plain[key]
    if type(value) not in (int, float) or not 0 < value <= 1:
        raise UsageError(f"{within}{key}={value}; expected a share above 0, at most 1")
    return float(value)


def _among(plain: Mapping[str, Any], key: str, known: Sequence[str]) -> str:
    if plain[key] not in known:
        raise UsageError(f"{key}={plain[key]}; expected {' or '.join(known)}")
    return str(plain[key])


def plain_part(config: DictConfig, *keys: str) -> dict[str, Any]:
    """Some keys of a configuration, resolved."""
    return _plain(OmegaConf.masked_copy(config, list(keys)))


def _plain(config: DictConfig) -> dict[str, Any]:
    """Resolved, without Hydra's own part."""
    with plain_errors():
        own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        found = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    if not isinstance(found, dict):
        raise UsageError(f"run.yaml must hold keys and values, got {type(found).__name__}")
    return {str(key): value for key, value in found.items()}
