"""The words of a command line, before Hydra sees them: checked against what there is, made whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from privbench.errors import UnknownName, UsageError
from privbench.plugins import Listing, hint, listing, search

ONE_RUN = ("regime", "threat", "attack")
"""A word that names one of these makes it one run, not a study."""

OBJECTS = (
    "data", "model", "augmentation", "crowd", "slicer", "faults", "regime", "threat", "attack", "defense",
    "sink",
)  # fmt: skip
"""Groups whose choices are objects: their settings need not stand in the yaml to be set."""

OPTIONAL = ("study", "defense", "sink")
"""Groups of which nothing may be chosen."""

ROWS = "rows="

WORD = re.compile(r"(?P<prefix>\+\+|\+|~)?(?P<key>[\w./@-]+)(?:=(?P<value>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Words:
    """What was asked for.

    Args:
        words: overrides for Hydra.
        study: name of the study, empty = none.
        many: a sweep or a study, rather than one run.
        rows: which of the study's; empty = all.
        hint: the line that says how one run relates to the comparison; empty where it need not.
    """

    words: tuple[str, ...]
    study: str = ""
    many: bool = False
    rows: tuple[str, ...] = ()
    hint: str = ""


def understood(words: Sequence[str], multirun: bool = False) -> Words:
    """Decide what the words ask for, and refuse those that nobody understands.

    Raises:
        UnknownName: an unknown key or choice; the message holds the right ones.
        UsageError: something that is no ``key=value``, or more than one study.
    """
    found = listing()
    rows = _rows(words)
    words = [word for word in words if not word.startswith(ROWS)]
    parts = [_parts(word) for word in words]
    for part in parts:
        _check(part, found)
    studies = [part["value"] for part in parts if part["key"] == "study"]
    if len(studies) > 1 or any("," in study for study in studies):
        raise UsageError(f"one study at a time; got {', '.join(studies)}")
    study = studies[0] if studies else ""
    single = any(part["key"].partition(".")[0] in ONE_RUN for part in parts)
    ready = _own_model([_whole(part) for part in parts], parts)
    if study:
        _check_rows(study, found)
        return Words(tuple(ready), study, many=True, rows=rows)
    if rows and (multirun or single):
        raise UsageError(
            f"rows={','.join(rows)} chooses among the rows of a study, and none is asked for; name it too: "
            "study=NAME"
        )
    if multirun:
        return Words(tuple(ready), many=True)
    if single:
        return Words(tuple(ready), hint=_hint(words, parts, found))
    _check_rows("compare", found)
    return Words((*ready, "study=compare"), "compare", many=True, rows=rows)


def _rows(words: Sequence[str]) -> tuple[str, ...]:
    """Beginnings or patterns of names, of ``rows=040,05*``."""
    said = [word.removeprefix(ROWS) for word in words if word.startswith(ROWS)]
    rows = tuple(part for text in said for part in re.split(r"[\[\],\s]+", text) if part)
    if said and not rows:
        raise UsageError("rows= is empty; expected beginnings or patterns of names: rows=040,05*")
    return rows


def _parts(word: str) -> dict[str, str]:
    match = WORD.fullmatch(word)
    if match is None or (match["value"] is None and match["prefix"] != "~"):
        raise UsageError(
            f"'{word}' is not understood; expected key=value, for example attack=lira (what there "
            "is: privbench --help), or one of the commands report, plugins"
        )
    return {name: text or "" for name, text in match.groupdict().items()}


def _check(part: dict[str, str], found: Listing) -> None:
    """Refuse an unknown key, and an unknown choice of a group."""
    key, value = part["key"], part["value"]
    head = key.partition(".")[0].partition("@")[0]
    if part["prefix"] == "~" and head == key and head not in OPTIONAL:
        raise UsageError(f"'~{key}' would leave nothing in its place; choose another: {key}=...")
    if head == "hydra" or head.startswith("hydra/"):
        return
    scalars = _scalars(found)
    groups = {group for group in found if group}
    if head not in groups | scalars:
        raise UnknownName(f"there is no key '{head}'{hint(head, groups | scalars)}")
    if head != key or head not in groups or re.search(r"[(){}$*\"']", value):
        return  # a setting, or a value that only Hydra can read
    for name in re.split(r"[\[\],\s]+", value):
        if name in found[head] or (name in ("", "null") and head in OPTIONAL):
            continue
        raise search(head, name, found[head])


def _scalars(found: Listing) -> set[str]:
    """Top-level keys of run.yaml."""
    text = found[""]["run"].path.read_text(encoding="utf-8")
    return set(re.findall(r"^(\w+):", text, re.MULTILINE)) - {"defaults", "hydra"}


def _check_rows(study: str, found: Listing) -> None:
    """A study of which no row exists would run nothing, in silence."""
    if study not in found.get("study", {}):
        raise search("study", study, found.get("study", {}))
    text = found["study"][study].path.read_text(encoding="utf-8")
    for group in re.findall(r"\+(row/[\w-]+): *glob", text):
        if not found.get(group):
            raise UsageError(
                f"study={study} takes its rows from '{group}', where there are none; expected files "
                f"conf/{group}/NNN-words.yaml in a distribution that is installed"
            )


def _whole(part: dict[str, str]) -> str:
    """The word for Hydra. A setting of an object may be absent from its yaml: ``++`` allows that,
    and the class itself refuses what it does not know."""
    head, dot, _ = part["key"].partition(".")
    prefix = part["prefix"]
    if dot and head in OBJECTS and not prefix:
        prefix = "++"
    return prefix + part["key"] + ("=" + part["value"] if part["value"] or prefix != "~" else "")


def _own_model(ready: list[str], parts: list[dict[str, str]]) -> list[str]:
    """``model._target_=mynet.Net`` alone means a network of the user's, without our settings."""
    keys = {part["key"] for part in parts}
    if "model._target_" in keys and "model" not in keys:
        return ["model=own", *ready]
    return ready


def _hint(words: Sequence[str], parts: list[dict[str, str]], found: Listing) -> str:
    """The first line printed of one run."""
    text = found[""]["run"].path.read_text(encoding="utf-8")
    defaults = dict(re.findall(rf"^  - ({'|'.join(ONE_RUN)}): (\w+)", text, re.MULTILINE))
    named = {part["key"]: part["value"] for part in parts if part["key"] in ONE_RUN}
    what = ", ".join(f"{key}={value}" for key, value in {**defaults, **named}.items())
    rest = [
        w for w, p in zip(words, parts, strict=True) if p["key"].partition(".")[0] not in ONE_RUN
    ]
    return f"one run ({what}); for the whole comparison: privbench {' '.join(['study=compare', *rest])}"
