"""From configuration to objects: imports a ``_target_`` and calls it with its settings.

Stricter than Hydra's ``instantiate``: a wrong setting is answered with the right ones, and an import
that fails says why.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from privbench.contract import load_name
from privbench.errors import PluginError, PrivbenchError, UnknownName, UsageError
from privbench.plugins import hint

Thing = TypeVar("Thing")

PLAIN: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}
"""Annotations of settings that are checked; others are the class's own affair."""


def imported(target: str, where: str) -> Any:
    """The object behind an import name.

    Args:
        target: ``package.module.Name``.
        where: the configuration key that named it, for the message.

    Raises:
        PluginError: it cannot be imported; the message holds the cause.
    """
    try:
        return load_name(target)
    except PrivbenchError as cause:
        raise PluginError(f"{where}._target_: {cause}") from cause
    except Exception as cause:
        raise PluginError(
            f"{where}._target_: importing '{target}' raised {type(cause).__name__}: {cause}; "
            "mend that module, or choose another"
        ) from cause


def build(settings: Any, where: str) -> Any:
    """The object that a piece of plain configuration stands for.

    A mapping with ``_target_`` becomes a call of it, inner ones first; everything else stays as it
    is. Frozen dataclasses get tuples in place of lists.

    Raises:
        UsageError: a setting is unknown, missing, of the wrong type, or refused by the class.
        PluginError: the class cannot be imported.
    """
    if isinstance(settings, list):
        return [build(value, f"{where}[{i}]") for i, value in enumerate(settings)]
    if not isinstance(settings, Mapping):
        return settings
    inner = {key: build(v, f"{where}.{key}") for key, v in settings.items() if key != "_target_"}
    if "_target_" not in settings:
        return inner
    made = imported(settings["_target_"], where)
    _check_names(made, inner, where)
    if isinstance(made, type) and is_dataclass(made):
        inner = {key: _checked(made, key, value, where) for key, value in inner.items()}
    try:
        return made(**inner)
    except PrivbenchError:
        raise
    except Exception as cause:  # whatever a constructor of the user's raises
        raise UsageError(
            f"{where}: '{settings['_target_']}' refuses its settings: {type(cause).__name__}: {cause}"
        ) from cause


def build_as(kind: type[Thing], settings: Any, where: str) -> Thing:
    """As ``build``, for a key whose object must be of a given kind.

    Raises:
        PluginError: it is something else.
    """
    made = build(settings, where)
    if not isinstance(made, kind):
        raise PluginError(
            f"{where} must be a {kind.__name__} of {kind.__module__}, "
            f"got {type(made).__name__} from {settings}"
        )
    return made


def _check_names(made: Any, inner: Mapping[str, Any], where: str) -> None:
    """Every setting is one that the class takes, and none that it needs is missing."""
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        return  # written in C: it has no signature, and refuses by itself
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    takes = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    for key in inner:
        if key not in takes:
            raise UnknownName(f"{where} has no setting '{key}'{hint(key, takes)}")
    missing = [p.name for p in parameters if p.name in takes - set(inner) and p.default is p.empty]
    if missing:
        typed = " ".join(f"{where}.{name}=..." for name in missing)
        raise UsageError(f"{where} ({getattr(made, '__name__', made)}) needs {typed}")


def _checked(made: type, key: str, value: Any, where: str) -> Any:
    """The value, of the type that the field declares."""
    if isinstance(value, list):
        return tuple(value)
    annotation = next((str(f.type) for f in fields(made) if f.name == key), "")
    names = [part.strip() for part in annotation.split("|")]
    if value is None or not all(name in PLAIN or name == "None" for name in names):
        return value
    kinds = {kind for name in names for kind in PLAIN.get(name, ())}
    if type(value) not in kinds:
        raise UsageError(
            f"{where}.{key}={value!r}; expected {annotation}, got {type(value).__name__}"
        )
    return float(value) if "float" in names and "int" not in names else value
