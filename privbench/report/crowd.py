"""The sliced network and its devices, as far as a map of them needs.

Reading a report must not import torch, so what the contract says of loads and traffic is said again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from privbench import contract
    from privbench.contract import Topology


@dataclass(frozen=True)
class Stage:
    """A layer: its name, its place (``stem``, ``body``, ``tail``) and its number of channels."""

    name: str
    place: str
    channels: int


@dataclass(frozen=True)
class Block:
    """Channels of a layer that one device computes: how many, and of which ``side``."""

    party: str
    layer: str
    units: int
    side: str


@dataclass(frozen=True)
class Load:
    """What a device spends in one step at most, beside what it has."""

    party: str
    flops: float  # FLOP a step
    flops_budget: float
    memory: float  # bytes
    memory_budget: float
    sent: float = 0.0  # bytes a step
    received: float = 0.0  # bytes a step
    seconds: float = 0.0  # computing, a step
    joules: float = 0.0  # a step


@dataclass(frozen=True)
class Traffic:
    """Bytes per sample between two devices, both ways together."""

    one: str
    other: str
    nbytes: float


@dataclass(frozen=True)
class Bill:
    """What a step costs under a regime, simulated; a device is any party but servers and trainers.

    ``memory`` and ``flops_worst`` are those of the device that spends most.
    """

    regime: str
    rows: float
    seconds: float
    flops: float  # of all parties
    nbytes: float  # of all messages
    joules: float  # of all devices
    memory: float  # bytes
    flops_worst: float

    @classmethod
    def of(cls, bill: contract.Bill) -> Bill:
        """Summed over parties."""
        devices = [c for c in bill.costs if c.party.startswith(("device-", "client-"))]
        return cls(
            bill.regime,
            bill.rows,
            bill.seconds,
            sum(cost.flops for cost in bill.costs),
            bill.nbytes,
            sum(cost.joules for cost in devices),
            max((cost.memory for cost in devices), default=0.0),
            max((cost.flops for cost in devices), default=0.0),
        )


@dataclass(frozen=True)
class Volume:
    """Bytes per sample between devices, as one slicer would have it; None = it found no slicing."""

    slicer: str
    nbytes: float | None
    devices: int = 0
    reason: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Lost:
    """One kind of thing that faults cost, and how much."""

    what: str
    count: float


@dataclass(frozen=True)
class CrowdFacts:
    """A sliced network.

    Args:
        stages: in order of the forward pass.
        blocks: who hosts what, in the order of the channels.
        loads: what each device spends in a step, beside what it has.
        traffic: bytes per sample between each two devices.
        bills: what a step costs, here and under other regimes on the same crowd.
        volumes: what this slicer and others make of the same problem.
        lost: to faults; empty where none were asked for.
        labels: where the loss is computed: ``tail``, ``logits``, ``shared``; empty in older reports.
    """

    stages: tuple[Stage, ...]
    blocks: tuple[Block, ...]
    loads: tuple[Load, ...]
    traffic: tuple[Traffic, ...]
    bills: tuple[Bill, ...] = ()
    volumes: tuple[Volume, ...] = ()
    lost: tuple[Lost, ...] = ()
    labels: str = ""

    @classmethod
    def of(cls, topology: Topology) -> CrowdFacts | None:
        """Those of a topology; None where no crowd trained."""
        if not topology.loads:
            return None
        return cls(
            tuple(Stage(layer.name, layer.place, layer.channels) for layer in topology.layers),
            tuple(
                Block(s.party, s.layer, len(s.units), "output" if s.columns is None else "input")
                for s in topology.slices
            ),
            _loads(topology),
            tuple(Traffic(**asdict(each)) for each in topology.traffic),
            tuple(Bill.of(bill) for bill in topology.bills),
            tuple(Volume(**asdict(each)) for each in topology.volumes),
            tuple(Lost(*each) for each in asdict(topology.losses).items())
            if topology.losses
            else (),
            topology.labels,
        )

    @classmethod
    def read(cls, facts: Mapping[str, Any] | None) -> CrowdFacts | None:
        """As stored in report.json."""
        if facts is None:
            return None
        return cls(
            **{
                name: tuple(kind(**each) for each in facts.get(name, ()))
                for name, kind in KINDS.items()
            },
            labels=facts.get("labels", ""),
        )


KINDS: Mapping[str, Any] = MappingProxyType(
    {
        "stages": Stage, "blocks": Block, "loads": Load, "traffic": Traffic, "bills": Bill,
        "volumes": Volume, "lost": Lost,
    }
)  # fmt: skip
"""What the lists of a stored crowd hold; what an older report lacks is empty."""


def _loads(topology: Topology) -> tuple[Load, ...]:
    """Budgets and needs, with the bill of each device where there is one."""
    costs = {c.party: c for bill in topology.bills[:1] for c in bill.costs}
    found = []
    for load in topology.loads:
        cost = costs.get(load.party)
        spent = (cost.sent, cost.received, cost.seconds, cost.joules) if cost else ()
        found.append(
            Load(load.party, load.flops, load.flops_budget, load.memory, load.memory_budget, *spent)
        )
    return tuple(found)
