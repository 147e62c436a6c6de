"""Insiders that deviate from the protocol: they may change what they send. One of them acts at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from privbench.threats.crowd import Coordinator, Host, Owner
from privbench.threats.insider import Server, SplitServer


@dataclass(frozen=True, kw_only=True)
class HostActive(Host):
    """A host of a crowd that may change what it sends: gradients, partial sums, activations of its layers
    and, where it owns samples, of its stem."""

    name: ClassVar[str] = "host_active"
    tampers: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class OwnerActive(Owner):
    """An owner of samples that may change the stem and tail gradients that it sends."""

    name: ClassVar[str] = "owner_active"
    tampers: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class CoordinatorActive(Coordinator):
    """A coordinator that may send owners another stem and tail than the gradients ask for.

    It looks at the first steps: who tampers need not do so for long.
    """

    name: ClassVar[str] = "coordinator_active"
    tampers: ClassVar[bool] = True
    stronger: ClassVar[tuple[tuple[str, object], ...]] = (("stale_weights", True),)

    steps: str = "first:8"


@dataclass(frozen=True, kw_only=True)
class ServerActive(Server):
    """A server of federated averaging that may send clients another model than the average."""

    name: ClassVar[str] = "server_active"
    tampers: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class SplitServerActive(SplitServer):
    """A server of split learning that may send back other gradients than those of the loss."""

    name: ClassVar[str] = "split_server_active"
    tampers: ClassVar[bool] = True
