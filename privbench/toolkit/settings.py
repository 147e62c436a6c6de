"""Settings of attacks that are numbers: refused where nothing could come of them."""

from __future__ import annotations

from privbench.contract import Attack
from privbench.errors import UsageError


def at_least(attack: Attack, least: float, *names: str) -> None:
    """Refuse settings below a number, NaN among them.

    Raises:
        UsageError: one is.

    Example::

        at_least(self, 1, "epochs", "copies")
    """
    for name in names:
        value = getattr(attack, name)
        if not value >= least:
            raise UsageError(f"attack.{name}={value}; expected at least {least:g}")


def above(attack: Attack, bound: float, *names: str) -> None:
    """Refuse settings that do not exceed a number.

    Raises:
        UsageError: one does not.
    """
    for name in names:
        value = getattr(attack, name)
        if not value > bound:
            raise UsageError(f"attack.{name}={value}; expected a number above {bound:g}")
