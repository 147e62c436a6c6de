"""Insiders of centralized training, federated averaging and two-party split learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privbench.contract import Seat, Threat, Topology
from privbench.errors import UsageError
from privbench.threats.knowledge import KNOWN


@dataclass(frozen=True, kw_only=True)
class Trainer(Threat):
    """Collects the raw records and trains on them (centralized learning, DP-SGD)."""

    name: ClassVar[str] = "trainer"
    kinds: ClassVar[tuple[str, ...]] = ("samples", "labels")

    steps: str = "all"

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The trainer, where there is one."""
        if "trainer" not in topology.parties:
            return ()
        return (Seat("trainer", "infrastructure", ("trainer",), grants=KNOWN),)


@dataclass(frozen=True, kw_only=True)
class Server(Threat):
    """The server of federated averaging: every client's update, every round's global model."""

    name: ClassVar[str] = "server"
    kinds: ClassVar[tuple[str, ...]] = ("update", "global_weights")

    steps: str = "first:8"

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The server, where there is one."""
        if "server" not in topology.parties:
            return ()
        return (Seat("server", "infrastructure", ("server",), grants=KNOWN | {"model_weights"}),)


@dataclass(frozen=True, kw_only=True)
class Client(Threat):
    """A client of federated averaging: from two global models and its own update it knows what the
    others sent, added up."""

    name: ClassVar[str] = "client"
    kinds: ClassVar[tuple[str, ...]] = ("update", "global_weights")

    steps: str = "first:8"

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """Every client."""
        if "server" not in topology.parties:
            return ()
        grants = KNOWN | {"model_weights", "own_samples"}
        return tuple(Seat(party, "peer", (party,), grants=grants) for party in topology.owners)


@dataclass(frozen=True, kw_only=True)
class SplitServer(Threat):
    """The server of two-party split learning.

    Args:
        pairs: ``none``, or ``query``: an oracle maps the attacker's inputs to activations. No
            protocol grants that; it gives a labelled upper bound.
    """

    name: ClassVar[str] = "split_server"
    kinds: ClassVar[tuple[str, ...]] = ("activation", "gradient", "labels")
    stronger: ClassVar[tuple[tuple[str, object], ...]] = (("pairs", "query"),)

    pairs: str = "none"

    def seats(self, topology: Topology) -> tuple[Seat, ...]:
        """The server, where there is one."""
        if self.pairs not in ("none", "query"):
            raise UsageError(f"threat.pairs='{self.pairs}' is unknown; expected none or query")
        if "split_server" not in topology.parties:
            return ()
        grants = KNOWN | {"own_weights", "labels"}
        seat = Seat(
            "split_server", "infrastructure", ("split_server",), grants=grants, pairs=self.pairs
        )
        return (seat,)
