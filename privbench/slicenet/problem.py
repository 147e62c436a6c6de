"""The slicing problem: vertices, what they cost, what flows between them, and what devices can afford.

Pure numbers: a slicer needs to know nothing of networks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from privbench.contract import Party
from privbench.errors import BudgetError, PluginError
from privbench.slicenet.crowd import Device


@dataclass(frozen=True)
class Vertex:
    """A block of a body layer: what is given to one host as a whole.

    Args:
        layer: its name.
        flops: of forward and backward pass on one sample.
        parameters: numbers held.
        output: numbers a sample that it keeps until the backward pass.
    """

    layer: str
    flops: float
    parameters: int
    output: int


@dataclass(frozen=True)
class Flow:
    """Blocks of one layer that the same vertices need: a hyperedge.

    Each block goes once to each device that hosts a target and does not make the block itself; its
    gradient comes back the same way.

    Args:
        layer: whose output, or partial sum, this is.
        sources: vertices that make the blocks; empty = the owner of each row makes all of it.
        numbers: numbers a sample of each block (one entry where owners make it).
        targets: vertices that need all of these blocks.
        to_owners: do owners need it too, for the tail?
    """

    layer: str
    sources: tuple[int, ...]
    numbers: tuple[int, ...]
    targets: tuple[int, ...]
    to_owners: bool = False


@dataclass(frozen=True, eq=False)
class Problem:
    """What a slicer is given.

    Args:
        vertices: to be hosted, in order of the forward pass.
        flows: what each block sends to whom, in order of the forward pass.
        devices: what each can afford.
        shares: share of each owner in a batch, summing to 1 (owner k is device k; 0 = owns nothing).
        batch: rows of a step, B.
        own_rows: most rows of one step that can be the device's own.
        element: bytes a number.
        state: numbers that the optimiser keeps for each parameter.
        owner_flops: of stem and tail on one sample.
        owner_parameters: numbers of stem and tail.
        owner_output: numbers a sample that stem and tail compute.
        scorer: the vertex that computes the loss: owners send its host their labels; None = they keep
            them. Labels are no part of the volume.
        micro_batch: rows that are computed at a time; None = all of a step.
    """

    vertices: tuple[Vertex, ...]
    flows: tuple[Flow, ...]
    devices: tuple[Device, ...]
    shares: tuple[Fraction, ...]
    batch: int
    own_rows: tuple[int, ...]
    element: int
    state: int
    owner_flops: float
    owner_parameters: int
    owner_output: int
    scorer: int | None = None
    micro_batch: int | None = None

    @property
    def at_once(self) -> int:
        """Rows that a device keeps in memory at a time."""
        return self.batch if self.micro_batch is None else min(self.batch, self.micro_batch)

    def own_at_once(self, device: int) -> int:
        """Most of these that can be the device's own."""
        return min(self.own_rows[device], self.at_once)

    @property
    def parties(self) -> tuple[Party, ...]:
        """Names of the devices."""
        return tuple(f"device-{number}" for number in range(len(self.devices)))

    def flops(self, device: int, vertices: Collection[int]) -> float:
        """FLOP a step of a device that hosts these vertices: it owns as many rows as it may."""
        body = sum(self.vertices[number].flops for number in vertices)
        return self.batch * body + self.own_rows[device] * self.owner_flops

    def memory(self, device: int, vertices: Collection[int]) -> float:
        """Bytes that a device needs, with ``at_once`` rows of a step at a time.

        Parameters, gradients and optimiser state of its vertices, and of stem and tail if it owns
        rows; outputs of its vertices and the distinct blocks that it receives, each once; stem and
        tail outputs of its own rows.
        """
        hosted = set(vertices)
        held = sum(self.vertices[number].parameters for number in hosted)
        rows = self.at_once * sum(self.vertices[number].output for number in hosted)
        rows += self.at_once * sum(received(flow, hosted) for flow in self.flows)
        if self.own_rows[device]:
            held += self.owner_parameters
            rows += self.own_at_once(device) * self.owner_output
        return float(self.element * (held * (2 + self.state) + rows))


def received(flow: Flow, hosted: Collection[int]) -> int:
    """Numbers a sample of a flow that reach a device which hosts these vertices."""
    if not any(number in hosted for number in flow.targets):
        return 0
    own = sum(
        count for number, count in zip(flow.sources, flow.numbers, strict=False) if number in hosted
    )
    return sum(flow.numbers) - own


@dataclass(frozen=True)
class Slicing:
    """Who hosts what: ``hosts[i]`` is the device of vertex i."""

    hosts: tuple[int, ...]

    def hosted(self, device: int) -> tuple[int, ...]:
        """Vertices of one device."""
        return tuple(number for number, host in enumerate(self.hosts) if host == device)


def volume(problem: Problem, slicing: Slicing) -> Fraction:
    """Bytes of activations, partial sums and gradients that cross between devices, per sample.

    Twice (forward and back) what each flow sends, once for each receiving device; what goes to or
    comes from owners counts for the share of rows that others own. This is the connectivity-minus-one
    metric of hypergraph partitioning (Catalyurek, Aykanat, 1999, https://doi.org/10.1109/71.780863),
    summed over blocks that have the same consumers. Exact, as a fraction: shares of rows are.
    """
    numbers = Fraction(0)
    for flow in problem.flows:
        receivers = {slicing.hosts[number] for number in flow.targets}
        total = sum(flow.numbers)
        if not flow.sources:
            numbers += sum(total * (1 - problem.shares[device]) for device in receivers)
            continue
        for number, count in zip(flow.sources, flow.numbers, strict=True):
            host = slicing.hosts[number]
            numbers += count * len(receivers - {host})
            if flow.to_owners:
                numbers += count * (1 - problem.shares[host])
    return 2 * numbers * problem.element


@dataclass(frozen=True, eq=False)
class Needs:
    """What each device would spend under a slicing.

    Args:
        flops: FLOP a step, by device.
        memory: bytes, by device.
    """

    flops: Float64[np.ndarray, " devices"]
    memory: Float64[np.ndarray, " devices"]


def needs_of(problem: Problem, slicing: Slicing) -> Needs:
    """``Problem.flops`` and ``Problem.memory`` of all devices at once."""
    devices = len(problem.devices)
    hosts = np.asarray(slicing.hosts, dtype=np.int64)
    own_rows = np.asarray(problem.own_rows, dtype=np.float64)

    def per_device(values: Sequence[float]) -> np.ndarray:
        return np.bincount(hosts, np.asarray(values, dtype=np.float64), minlength=devices)

    flops = problem.batch * per_device([vertex.flops for vertex in problem.vertices])
    held = per_device([vertex.parameters for vertex in problem.vertices])
    rows = per_device([vertex.output for vertex in problem.vertices])
    for flow in problem.flows:
        receivers = np.unique(hosts[list(flow.targets)])
        rows[receivers] += sum(flow.numbers)
        if flow.sources:
            made = np.bincount(hosts[list(flow.sources)], flow.numbers, minlength=devices)
            rows[receivers] -= made[receivers]
    held += problem.owner_parameters * (own_rows > 0)
    own_at_once = np.minimum(own_rows, problem.at_once)
    rows = problem.at_once * rows + own_at_once * problem.owner_output
    memory = problem.element * (held * (2 + problem.state) + rows)
    return Needs(flops + own_rows * problem.owner_flops, memory)


def check_budgets(problem: Problem, slicing: Slicing) -> None:
    """Refuse a slicing that breaks a constraint.

    Raises:
        PluginError: it does not give every vertex to a device of the crowd.
        BudgetError: a device would need more than it has; names it, the constraint and the gap.
    """
    devices = len(problem.devices)
    if len(slicing.hosts) != len(problem.vertices) or not set(slicing.hosts) <= set(range(devices)):
        raise PluginError(
            f"a slicing gives each of {len(problem.vertices)} vertices to a device from 0 to "
            f"{devices - 1}; got {len(slicing.hosts)} hosts: {sorted(set(slicing.hosts))}"
        )
    idle = [host for host in slicing.hosts if not problem.devices[host].hosts]
    if idle:
        raise BudgetError(
            f"this slicing gives device-{idle[0]} a slice, and it hosts nothing (hosts=false); "
            "choose another slicer"
        )
    gaps = gaps_of(problem, slicing)
    if gaps:
        raise BudgetError(
            f"this slicing breaks a budget: {gaps[0]}; give devices more, use more of them "
            "(crowd.devices=...), a smaller regime.batch or regime.micro_batch, or another slicer"
        )


@dataclass(frozen=True)
class Gap:
    """A constraint that a device does not keep."""

    device: int
    constraint: str  # compute or memory
    needed: float
    budget: float

    @property
    def over(self) -> float:
        """Need over budget, as a ratio."""
        return self.needed / self.budget if self.budget else float("inf")

    def __str__(self) -> str:
        unit = "FLOP a step" if self.constraint == "compute" else "bytes"
        return (
            f"device-{self.device} needs {self.needed:.4g} {unit} and its {self.constraint} budget "
            f"is {self.budget:.4g}: {self.needed - self.budget:.4g} too little"
        )


def gaps_of(problem: Problem, slicing: Slicing) -> tuple[Gap, ...]:
    """The constraints that a slicing breaks, the furthest first; empty = it keeps all."""
    needs = needs_of(problem, slicing)
    gaps = [
        Gap(device, *found)
        for device, profile in enumerate(problem.devices)
        for found in (
            ("compute", float(needs.flops[device]), profile.compute),
            ("memory", float(needs.memory[device]), profile.memory),
        )
        if found[1] > found[2]
    ]
    return tuple(sorted(gaps, key=lambda gap: -gap.over))


def gap_of(problem: Problem, device: int, vertices: Collection[int]) -> Gap | None:
    """The constraint that a device would break most by hosting these vertices, None if it keeps all."""
    profile = problem.devices[device]
    gaps = (
        Gap(device, "compute", problem.flops(device, vertices), profile.compute),
        Gap(device, "memory", problem.memory(device, vertices), profile.memory),
    )
    broken = [gap for gap in gaps if gap.needed > gap.budget]
    return max(broken, key=lambda gap: gap.over, default=None)
