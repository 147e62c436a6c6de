"""Outsiders: whoever holds the released model, or may query it. The same for every regime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privbench.contract import Seat, Threat, Topology
from privbench.errors import UsageError

PUBLIC = frozenset({"candidates", "auxiliary", "recipe"})


@dataclass(frozen=True, kw_only=True)
class Released(Threat):
    """Holds the final weights; sees no traffic."""

    name: ClassVar[str] = "released"
    kinds: ClassVar[tuple[str, ...]] = ()

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The one seat of the public."""
        return (Seat("anyone", "outsider", ("world",), grants=PUBLIC | {"released_weights"}),)


@dataclass(frozen=True, kw_only=True)
class Api(Threat):
    """Queries the final model; ``budget.queries`` bounds how often.

    Args:
        answers: ``probabilities`` or ``labels``.
    """

    name: ClassVar[str] = "api"
    kinds: ClassVar[tuple[str, ...]] = ()
    stronger: ClassVar[tuple[tuple[str, object], ...]] = (("answers", "probabilities"),)

    answers: str = "probabilities"

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The one seat of a client of the service."""
        if self.answers not in ("probabilities", "labels"):
            raise UsageError(
                f"threat.answers='{self.answers}' is unknown; expected probabilities or labels"
            )
        return (Seat("client", "outsider", ("world",), grants=PUBLIC | {f"oracle_{self.answers}"}),)
