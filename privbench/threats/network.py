"""Eavesdroppers: one link, or every link. On an encrypted wire they see sizes and times alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privbench.contract import KINDS, Seat, Threat, Topology
from privbench.errors import UsageError

KNOWN = frozenset({"candidates", "auxiliary", "recipe"})


@dataclass(frozen=True, kw_only=True)
class Wire(Threat):
    """Taps every link, the broadcasts of stem weights included."""

    name: ClassVar[str] = "wire"
    kinds: ClassVar[tuple[str, ...]] = KINDS

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The one seat on all links."""
        broadcasts = "coordinator" in topology.parties and not topology.encrypted
        grants = KNOWN | ({"prefix_weights"} if broadcasts else set())
        pairs = "prefix" if broadcasts else "none"
        return (Seat("wire", "network", everything=True, grants=frozenset(grants), pairs=pairs),)


@dataclass(frozen=True, kw_only=True)
class Link(Threat):
    """Taps the link between two devices.

    Args:
        link: numbers of the two devices, for example ``[3, 7]``.
    """

    name: ClassVar[str] = "link"
    kinds: ClassVar[tuple[str, ...]] = KINDS

    link: tuple[int, int] = (0, 1)

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The one seat on that link."""
        one, other = (f"device-{number}" for number in self.link)
        devices = [party for party in topology.parties if party.startswith("device-")]
        for party in (one, other):
            if devices and party not in devices:
                raise UsageError(
                    f"threat.link={list(self.link)}: there is no '{party}'; "
                    f"devices are 0 to {len(devices) - 1}"
                )
        if not devices:
            return ()
        return (Seat(f"{one}–{other}", "network", links=((one, other),), grants=KNOWN),)
