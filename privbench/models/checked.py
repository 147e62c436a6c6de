"""Arguments of the reference networks, refused with what to type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from privbench.errors import UsageError


def whole(name: str, value: Any, example: int, least: int = 1) -> int:
    """The value itself.

    Raises:
        UsageError: it is no whole number, or less than ``least``.
    """
    if type(value) is not int or value < least:
        raise UsageError(
            f"model.{name}={value}; expected a whole number of at least {least}, for example "
            f"model.{name}={example}"
        )
    return value


def wholes(name: str, value: Any, example: Sequence[int]) -> tuple[int, ...]:
    """The values as a tuple: as many positive whole numbers as the example has.

    Raises:
        UsageError: they are not.
    """
    listed = isinstance(value, Sequence) and len(value) == len(example)
    if not listed or not all(type(each) is int and each > 0 for each in value):
        shown = ",".join(str(each) for each in example)
        raise UsageError(
            f"model.{name}={value}; expected a list of {len(example)} positive whole numbers, for "
            f"example model.{name}=[{shown}]"
        )
    return tuple(value)


def share(name: str, value: Any) -> float:
    """The value itself.

    Raises:
        UsageError: it is no number from 0 to below 1.
    """
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise UsageError(
            f"model.{name}={value}; expected a number from 0 to below 1, for example model.{name}=0.5"
        )
    return float(value)


def flag(name: str, value: Any) -> bool:
    """The value itself.

    Raises:
        UsageError: it is neither True nor False.
    """
    if type(value) is not bool:
        raise UsageError(f"model.{name}={value}; expected true or false")
    return value
