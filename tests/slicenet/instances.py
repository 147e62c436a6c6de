"""Seeded random slicing problems of many shapes, of which it is known whether they can be solved.

Networks are numbers only: blocks, what they cost, and what flows between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from privbench.slicenet.crowd import Device
from privbench.slicenet.problem import Flow, Problem, Slicing, Vertex, needs_of

CROWDS = ("equal", "unequal", "idle", "tight-compute", "tight-memory")
TILINGS = ("output", "input", "grid")
NETWORKS = (
    *(f"{kind}-{tiling}" for kind in ("mlp", "conv") for tiling in TILINGS),
    "residual",
    "random",
)


@dataclass(frozen=True)
class Instance:
    """A problem and what is known of it.

    Args:
        name: network, crowd and seed: enough to make it again.
        problem: what a slicer is given.
        planted: a slicing that keeps all budgets; None where there surely is none.
    """

    name: str
    problem: Problem
    planted: Slicing | None


@dataclass(frozen=True)
class Layer:
    """A layer before it is tiled.

    Args:
        blocks: output blocks.
        channels: in each.
        kernel: side of its kernel; 1 = linear.
        area: numbers of a channel's map before pooling.
        pooled: numbers of a channel's map that the next layer gets.
    """

    blocks: int
    channels: int
    kernel: int = 1
    area: int = 1
    pooled: int = 1


class Network:
    """Vertices and flows as they are added."""

    def __init__(self) -> None:
        self.vertices: list[Vertex] = []
        self.flows: list[Flow] = []

    def vertex(self, layer: str, flops: float, parameters: int, output: int) -> int:
        """Add one; its number."""
        self.vertices.append(Vertex(layer, flops, parameters, output))
        return len(self.vertices) - 1

    def tile(self, name: str, layer: Layer, columns: int, part: float = 1.0, first=True) -> int:
        """A block of a layer that sees a part of its input columns."""
        weights = round(layer.channels * columns * layer.kernel**2 * part)
        output = layer.channels * (layer.area * (part < 1) + layer.pooled) if first else 0
        return self.vertex(
            name, 6.0 * weights * layer.area, weights + layer.channels * first, output
        )


def chain(layers: Sequence[Layer], tiling: str, stem: int) -> Network:
    """Layers one after another: owners make ``stem`` numbers for the first and need the last."""
    net = Network()
    sources: tuple[int, ...] = ()
    numbers: tuple[int, ...] = (stem,)
    columns = stem // max(1, layers[0].area)
    for depth, layer in enumerate(layers):
        name = f"layer{depth}"
        if depth:
            before = layers[depth - 1]
            columns = before.blocks * before.channels * (before.pooled if layer.kernel == 1 else 1)
        parts = {"output": 1, "input": layer.blocks, "grid": len(sources) or layer.blocks}[tiling]
        outs = 1 if tiling == "input" else layer.blocks
        whole = replace(layer, blocks=outs, channels=layer.channels * layer.blocks // outs)
        tiles = [
            [net.tile(name, whole, columns, 1 / parts, part == 0) for part in range(parts)]
            for _ in range(outs)
        ]
        _feed(net, name, sources, numbers, tiles)
        for row in tiles:
            if len(row) > 1:
                partial = whole.channels * whole.area
                net.flows.append(Flow(name, (row[0],), (partial,), tuple(row[1:])))
        sources = tuple(row[0] for row in tiles)
        numbers = (whole.channels * whole.pooled,) * outs
    net.flows.append(Flow("exit", sources, numbers, (), True))
    return net


def _feed(
    net: Network,
    name: str,
    sources: tuple[int, ...],
    numbers: tuple[int, ...],
    tiles: Sequence[Sequence[int]],
) -> None:
    """What a layer's tiles get: column j of them the j-th part of the layer before."""
    parts = len(tiles[0])
    for part in range(parts):
        targets = tuple(row[part] for row in tiles)
        if parts == 1 or len(sources) == parts > 1:
            mine = slice(None) if parts == 1 else slice(part, part + 1)
            net.flows.append(Flow(f"{name}-in", sources[mine], numbers[mine], targets))
        else:
            share = (max(1, numbers[0] // parts),)
            net.flows.append(Flow(f"{name}-in", sources, share, targets))


def residual(rng: np.random.Generator, depth: int, blocks: int) -> Network:
    """Blocks of two convolutions and a join: what enters is needed two layers later as well."""
    net = Network()
    layer = Layer(blocks, int(rng.integers(2, 9)), 3, 16, 16)
    columns, count = layer.blocks * layer.channels, layer.channels * layer.area
    first = tuple(net.tile("enter", layer, columns) for _ in range(blocks))
    net.flows.append(Flow("stem", (), (count * blocks,), first))
    entering = first
    for number in range(depth):
        one, two = (
            tuple(net.tile(f"conv{number}{side}", layer, columns) for _ in range(blocks))
            for side in "ab"
        )
        join = tuple(net.vertex(f"join{number}", 1.0 * count, 0, count) for _ in range(blocks))
        for block in range(blocks):
            both = (*one, join[block])
            net.flows.append(Flow(f"skip{number}", entering[block : block + 1], (count,), both))
        net.flows.append(Flow(f"conv{number}a", one, (count,) * blocks, two))
        for block in range(blocks):
            mine, its = two[block : block + 1], join[block : block + 1]
            net.flows.append(Flow(f"conv{number}b", mine, (count,), its))
        entering = join
    net.flows.append(Flow("exit", entering, (count,) * blocks, (), True))
    return net


def tangle(rng: np.random.Generator, vertices: int) -> Network:
    """A random acyclic graph: flows with some sources each, whose targets lie anywhere behind them."""
    net = Network()
    for number in range(vertices):
        size = int(rng.integers(1, 64))
        net.vertex(f"v{number}", float(rng.integers(1, 10_000)), int(rng.integers(1, 4000)), size)
    net.flows.append(Flow("stem", (), (int(rng.integers(8, 128)),), (0, *range(1, vertices, 5))))
    place = 0
    while place < vertices:
        width = int(rng.integers(1, 4))
        sources = tuple(range(place, min(vertices, place + width)))
        place = sources[-1] + 1
        behind = rng.permutation(np.arange(place, min(vertices, place + 30)))
        targets = tuple(sorted(behind[: int(rng.integers(1, 7))].tolist()))
        numbers = tuple(net.vertices[source].output for source in sources)
        net.flows.append(Flow(f"f{place}", sources, numbers, targets, not targets))
    return net


def network(rng: np.random.Generator, kind: str, vertices: int) -> Network:
    """A network of about so many vertices.

    Args:
        rng: drawn from.
        kind: one of ``NETWORKS``.
        vertices: about how many.
    """
    if kind == "random":
        return tangle(rng, vertices)
    if kind == "residual":
        depth = int(rng.integers(1, 3)) if vertices < 60 else int(rng.integers(3, 9))
        return residual(rng, depth, max(2, round(vertices / (1 + 3 * depth))))
    shape, tiling = kind.split("-")
    depth = int(rng.integers(2, 5)) if vertices < 60 else int(rng.integers(4, 9))
    each = vertices / depth
    sizes = rng.uniform(0.5, 1.5, depth)
    blocks = [max(2, round(size * each / sizes.mean())) for size in sizes]
    if tiling == "grid":
        blocks = [max(2, round(count**0.5)) for count in blocks]
    width = int(rng.integers(2, 9))
    if shape == "mlp":
        layers = [Layer(count, width) for count in blocks]
        return chain(layers, tiling, int(rng.integers(16, 257)))
    side = 8 if vertices < 60 else 16
    layers = []
    for number, count in enumerate(blocks):
        pooled = side // 2 if number % 2 == 0 and side > 2 else side
        layers.append(Layer(count, width, 3, side**2, pooled**2))
        side = pooled
    return chain(layers, tiling, layers[0].area * int(rng.integers(2, 17)))


def plant(rng: np.random.Generator, problem: Problem, hosting: np.ndarray) -> Slicing:
    """Consecutive vertices to devices in random order, by random weights; then some moved at random."""
    flops = np.array([vertex.flops for vertex in problem.vertices]) + 1e-9
    weights = rng.lognormal(0, 0.6, len(hosting))
    ends = np.cumsum(weights) / weights.sum()
    middles = (np.cumsum(flops) - flops / 2) / flops.sum()
    places = np.minimum(np.searchsorted(ends, middles), len(hosting) - 1)
    moved = rng.random(len(places)) < rng.choice([0.0, 0.0, 0.03, 0.1])
    places[moved] = rng.integers(0, len(hosting), int(moved.sum()))
    return Slicing(tuple(rng.permutation(hosting)[places].tolist()))


def peopled(rng: np.random.Generator, net: Network, devices: int, idle: bool) -> Problem:
    """A network and a crowd without limits; with ``idle`` some own nothing and some host nothing."""
    owns = np.ones(devices, dtype=bool)
    hosts = np.ones(devices, dtype=bool)
    if idle:
        owns, hosts = rng.random(devices) < 0.6, rng.random(devices) < 0.7
        owns[rng.integers(devices)] = hosts[rng.integers(devices)] = True
    records = np.where(owns, rng.integers(1, 100, devices), 0)
    batch = int(rng.integers(1, 33))
    body = sum(vertex.flops for vertex in net.vertices)
    output = sum(vertex.output for vertex in net.vertices)
    return Problem(
        vertices=tuple(net.vertices),
        flows=tuple(net.flows),
        devices=tuple(Device(compute=1e30, memory=1e30, hosts=bool(host)) for host in hosts),
        shares=tuple(Fraction(int(count), int(records.sum())) for count in records),
        batch=batch,
        own_rows=tuple(min(batch, int(count)) for count in records),
        element=4,
        state=int(rng.integers(0, 3)),
        owner_flops=float(round(body * rng.uniform(0, 0.02))),
        owner_parameters=int(rng.integers(1, 500)),
        owner_output=int(output * rng.uniform(0, 0.1)) + 1,
    )


def budgeted(
    rng: np.random.Generator,
    problem: Problem,
    planted: Slicing,
    slack: tuple[float, float],
    equal: bool,
) -> Problem:
    """Each device may spend what the planted slicing needs, times the slacks of compute and memory."""
    needs = needs_of(problem, planted)
    limits = np.stack([needs.flops * slack[0], needs.memory * slack[1]], axis=1)
    idle = np.bincount(planted.hosts, minlength=len(limits)) == 0
    limits[idle] *= rng.uniform(1, 2, (int(idle.sum()), 2))
    if equal:
        limits[:] = limits.max(axis=0)
    devices = tuple(
        replace(device, compute=float(compute), memory=float(memory))
        for device, (compute, memory) in zip(problem.devices, limits, strict=True)
    )
    return replace(problem, devices=devices)


def instance(
    seed: int, *, kind: str = "", crowd: str = "", small: bool = True, feasible: bool = True
) -> Instance:
    """Draw an instance; equal arguments give equal instances.

    Args:
        seed: of all that is drawn.
        kind: one of ``NETWORKS``; empty = drawn.
        crowd: one of ``CROWDS``; empty = drawn.
        small: up to about 30 vertices and 4 devices, else 200 to 700 and 4 to 64.
        feasible: can all vertices be hosted? If not, compute or memory lacks for sure.
    """
    rng = np.random.default_rng([seed, small, feasible])
    vertices = int(rng.integers(8, 27) if small else rng.integers(200, 701))
    devices = int(rng.integers(2, 5) if small else round(4 * 16 ** rng.random()))
    kind = kind or str(rng.choice(NETWORKS))
    crowd = crowd or str(rng.choice(CROWDS))
    found = drawn(rng, kind, crowd, vertices, devices)
    name = f"{kind} {crowd} seed {seed}"
    if feasible:
        return replace(found, name=name)
    return Instance(f"{name} infeasible", _starved(rng, found.problem), None)


def drawn(rng: np.random.Generator, kind: str, crowd: str, vertices: int, devices: int) -> Instance:
    """Draw an instance of about so many vertices.

    Args:
        rng: drawn from.
        kind: one of ``NETWORKS``.
        crowd: one of ``CROWDS``.
        vertices: about how many.
        devices: how many.
    """
    problem = peopled(rng, network(rng, kind, vertices), devices, crowd == "idle")
    hosting = np.flatnonzero([device.hosts for device in problem.devices])
    planted = plant(rng, problem, hosting)
    tight, loose = rng.uniform(1.05, 1.3), rng.uniform(1.5, 3.0)
    slack = {"tight-compute": (tight, loose), "tight-memory": (loose, tight)}.get(
        crowd, (tight, tight)
    )
    problem = budgeted(rng, problem, planted, slack, crowd == "equal")
    return Instance(f"{kind} {crowd}", problem, planted)


def _starved(rng: np.random.Generator, problem: Problem) -> Problem:
    """Budgets of one kind that are together less than what all vertices need, wherever they are."""
    rows, state = np.array(problem.own_rows), 2 + problem.state
    if rng.random() < 0.5:
        name, own = "compute", rows * problem.owner_flops
        need = problem.batch * sum(vertex.flops for vertex in problem.vertices)
    else:
        name = "memory"
        own = state * problem.owner_parameters * (rows > 0) + rows * problem.owner_output
        own = problem.element * own
        need = problem.element * sum(
            state * vertex.parameters + problem.batch * vertex.output for vertex in problem.vertices
        )
    spare = np.array([getattr(device, name) for device in problem.devices]) - own
    able = np.array([device.hosts for device in problem.devices])
    spare *= rng.uniform(0.5, 0.95) * need / spare[able].sum()
    devices = tuple(
        replace(device, **{name: float(limit)})
        for device, limit in zip(problem.devices, own + spare, strict=True)
    )
    return replace(problem, devices=devices)
