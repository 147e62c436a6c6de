"""The slicing problem: vertices, what they cost, what devices can afford, and what crosses between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from privbench.contract import Layer, Party, Slice
from privbench.errors import BudgetError, PluginError, UsageError
from privbench.slicenet.crowd import Device
from privbench.slicenet.graph import Graph, Stage
from privbench.slicenet.links import OWNER, Links, columns_per_channel

TILINGS = ("output", "input")


@dataclass(frozen=True)
class Vertex:
    """A block of a body layer: what is given to one host as a whole.

    Args:
        units: output channels, or columns of the weight under input tiling.
        flops: of forward and backward pass on one sample.
        parameters: numbers held.
        output: numbers a sample that it computes (under input tiling the layer's whole map).
        reduced: numbers a sample of the finished layer, where its host reduces partial sums; else 0.
    """

    layer: str
    units: tuple[int, ...]
    side: str
    flops: float
    parameters: int
    output: int
    reduced: int


@dataclass(frozen=True, eq=False)
class Problem:
    """What a slicer is given.

    Args:
        layers: of the whole chain.
        vertices: to be hosted, in order of the forward pass.
        devices: what each can afford.
        shares: share of each owner in a batch, summing to 1 (owner k is device k).
        batch: rows of a step, B.
        own_rows: most rows of one step that can be the device's own.
        element: bytes a number.
        state: numbers that the optimiser keeps for each parameter.
        owner_flops: of stem and tail on one sample.
        owner_parameters: numbers of stem and tail.
        owner_output: numbers a sample that stem and tail compute.
    """

    layers: tuple[Layer, ...]
    vertices: tuple[Vertex, ...]
    devices: tuple[Device, ...]
    shares: tuple[Fraction, ...]
    batch: int
    own_rows: tuple[int, ...]
    element: int
    state: int
    owner_flops: float
    owner_parameters: int
    owner_output: int

    @property
    def parties(self) -> tuple[Party, ...]:
        """Names of the devices."""
        return tuple(f"device-{number}" for number in range(len(self.devices)))

    def flops(self, device: int, vertices: Iterable[int]) -> float:
        """FLOP a step of a device that hosts these vertices: it owns as many rows as it may."""
        body = sum(self.vertices[number].flops for number in vertices)
        return self.batch * body + self.own_rows[device] * self.owner_flops

    def memory(self, device: int, vertices: Collection[int]) -> float:
        """Bytes that a device needs, with all rows of a step at once.

        Parameters, gradients and optimiser state of its vertices, stem and tail; outputs of its
        vertices and the distinct channels that it receives; stem and tail outputs of its own rows.
        A reducer adds partial sums as they arrive and so holds one map.
        """
        hosted = [self.vertices[number] for number in vertices]
        held = self.owner_parameters + sum(vertex.parameters for vertex in hosted)
        rows = self.own_rows[device] * self.owner_output
        rows += self.batch * sum(vertex.output + vertex.reduced for vertex in hosted)
        rows += self.batch * self._received(hosted)
        return float(self.element * (held * (2 + self.state) + rows))

    def _received(self, hosted: list[Vertex]) -> int:
        """Numbers a sample that reach a device because of these vertices."""
        total = 0
        for before, layer in zip(self.layers, self.layers[1:], strict=False):
            mine = [vertex for vertex in hosted if vertex.layer == layer.name]
            if not mine:
                continue
            if mine[0].side == "input":
                width = columns_per_channel(before, layer)
                needed = {unit // width for vertex in mine for unit in vertex.units}
                total += mine[0].output
            else:
                needed = set(range(before.channels))
            for vertex in hosted:
                if vertex.layer == before.name and vertex.side == "output":
                    needed -= set(vertex.units)
                elif vertex.layer == before.name and vertex.reduced:
                    needed = set()
            total += len(needed) * prod(before.shape[1:])
        return total


@dataclass(frozen=True)
class Slicing:
    """Who hosts what: ``hosts[i]`` is the device of vertex i."""

    hosts: tuple[int, ...]

    def slices(self, problem: Problem) -> tuple[Slice, ...]:
        """The same for the topology."""
        return tuple(
            Slice(f"device-{host}", vertex.layer, vertex.units, vertex.side)
            for host, vertex in zip(self.hosts, problem.vertices, strict=True)
        )

    def hosted(self, device: int) -> tuple[int, ...]:
        """Vertices of one device."""
        return tuple(number for number, host in enumerate(self.hosts) if host == device)


def vertices_of(graph: Graph, tiling: str, granularity: int) -> tuple[Vertex, ...]:
    """Blocks of at most ``granularity`` channels of every body layer.

    Raises:
        UsageError: unknown tiling, or a granularity below 1.
    """
    if tiling not in TILINGS:
        raise UsageError(f"tiling='{tiling}' is unknown; expected {' or '.join(TILINGS)}")
    if granularity < 1:
        raise UsageError(f"regime.granularity={granularity}; expected at least 1 channel a block")
    found: list[Vertex] = []
    for before, stage in zip(graph.stages, graph.stages[1:], strict=False):
        if stage.layer.place != "body":
            continue
        channels = stage.layer.channels if tiling == "output" else before.layer.channels
        width = 1 if tiling == "output" else columns_per_channel(before.layer, stage.layer)
        for start in range(0, channels, granularity):
            end = min(channels, start + granularity)
            units = tuple(range(start * width, end * width))
            found.append(_vertex(stage, units, tiling, first=start == 0))
    return tuple(found)


def _vertex(stage: Stage, units: tuple[int, ...], tiling: str, first: bool) -> Vertex:
    layer = stage.layer
    weight = stage.module.get_parameter("weight")
    biases = layer.channels if len(layer.parameters) > 1 else 0
    if tiling == "output":
        share, bias = len(units) / layer.channels, len(units) if biases else 0
        output, reduced = len(units) * prod(layer.shape[1:]), 0
    else:
        share, bias = len(units) / stage.columns, biases if first else 0
        output, reduced = prod(stage.map_shape), prod(layer.shape) if first else 0
    parameters = round(weight.numel() * share) + bias
    flops = 3 * stage.flops * share
    return Vertex(layer.name, units, tiling, flops, parameters, output, reduced)


def owner_flops(graph: Graph) -> float:
    """FLOP of stem and tail on one sample: the first layer needs no gradient of its input."""
    costs = [3 * stage.flops for stage in (*graph.placed("stem"), *graph.placed("tail"))]
    return sum(costs) - graph.stages[0].flops


def volume(problem: Problem, slicing: Slicing) -> float:
    """Bytes of activations, partial sums and gradients that cross between devices, per sample.

    Twice (forward and back) what travels along every link, once for each receiving device; a link
    to or from owners counts for the share of rows that others own.
    """
    links = Links(problem.layers, slicing.slices(problem))
    numbers = Fraction(0)
    for layer in links.travelling:
        for link in links.links(layer.name):
            crossing = Fraction(1)
            ends = {link.sender, link.receiver} - {OWNER}
            if OWNER in (link.sender, link.receiver):
                (device,) = ends
                crossing -= problem.shares[problem.parties.index(device)]
            numbers += len(link.units) * prod(layer.shape[1:]) * crossing
        if links.tiled(layer.name) == "input":
            vertex = next(v for v in problem.vertices if v.layer == layer.name)
            numbers += (len(links.hosts(layer.name)) - 1) * vertex.output
    return float(2 * numbers * problem.element)


def check_budgets(problem: Problem, slicing: Slicing) -> None:
    """Refuse a slicing that breaks a constraint.

    Raises:
        PluginError: it does not give every vertex to a device of the crowd.
        BudgetError: a device would need more than it has; names it, the constraint and the gap.
    """
    devices = range(len(problem.devices))
    if len(slicing.hosts) != len(problem.vertices) or not set(slicing.hosts) <= set(devices):
        raise PluginError(
            f"a slicing gives each of {len(problem.vertices)} vertices to a device from 0 to "
            f"{len(devices) - 1}; got {len(slicing.hosts)} hosts: {sorted(set(slicing.hosts))}"
        )
    for device in devices:
        gap = gap_of(problem, device, slicing.hosted(device))
        if gap is not None:
            raise BudgetError(
                f"this slicing breaks a budget: {gap}; give devices more, use more of them "
                "(crowd.devices=...), a smaller regime.batch, or another slicer"
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


def gap_of(problem: Problem, device: int, vertices: Sequence[int]) -> Gap | None:
    """The constraint that a device would break most by hosting these vertices, None if it keeps all."""
    profile = problem.devices[device]
    gaps = (
        Gap(device, "compute", problem.flops(device, vertices), profile.compute),
        Gap(device, "memory", problem.memory(device, vertices), profile.memory),
    )
    broken = [gap for gap in gaps if gap.needed > gap.budget]
    return max(broken, key=lambda gap: gap.over, default=None)
