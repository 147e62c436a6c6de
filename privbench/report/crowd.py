"""The sliced network and its devices, as far as a map of them needs.

Reading a report must not import torch, so what the contract says of loads and traffic is said again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Traffic:
    """Bytes per sample between two devices, both ways together."""

    one: str
    other: str
    nbytes: float


@dataclass(frozen=True)
class CrowdFacts:
    """A sliced network.

    Args:
        stages: in order of the forward pass.
        blocks: who hosts what, in the order of the channels.
        loads: what each device spends in a step, beside what it has.
        traffic: bytes per sample between each two devices.
    """

    stages: tuple[Stage, ...]
    blocks: tuple[Block, ...]
    loads: tuple[Load, ...]
    traffic: tuple[Traffic, ...]

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
            tuple(Load(**asdict(load)) for load in topology.loads),
            tuple(Traffic(**asdict(each)) for each in topology.traffic),
        )

    @classmethod
    def read(cls, facts: Mapping[str, Any] | None) -> CrowdFacts | None:
        """As stored in report.json."""
        if facts is None:
            return None
        kinds = {"stages": Stage, "blocks": Block, "loads": Load, "traffic": Traffic}
        return cls(**{n: tuple(kind(**each) for each in facts[n]) for n, kind in kinds.items()})
