"""How the layers of a network are tiled, and the slicing problem that follows."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from privbench.contract import Slice
from privbench.errors import UsageError
from privbench.slicenet.graph import Graph, Stage
from privbench.slicenet.links import columns_per_channel
from privbench.slicenet.problem import Flow, Slicing, Vertex

TILINGS = ("output", "input")


@dataclass(frozen=True)
class Tile:
    """A block of a body layer: output channels, or columns of the weight under input tiling."""

    layer: str
    units: tuple[int, ...]
    side: str


def tiles_of(graph: Graph, tiling: str, granularity: int) -> tuple[Tile, ...]:
    """Blocks of at most ``granularity`` channels of every body layer.

    Raises:
        UsageError: unknown tiling, or a granularity below 1.
    """
    if tiling not in TILINGS:
        raise UsageError(f"tiling='{tiling}' is unknown; expected {' or '.join(TILINGS)}")
    if granularity < 1:
        raise UsageError(f"regime.granularity={granularity}; expected at least 1 channel a block")
    found: list[Tile] = []
    for before, stage in zip(graph.stages, graph.stages[1:], strict=False):
        if stage.layer.place != "body":
            continue
        channels = stage.layer.channels if tiling == "output" else before.layer.channels
        width = 1 if tiling == "output" else columns_per_channel(before.layer, stage.layer)
        for start in range(0, channels, granularity):
            end = min(channels, start + granularity)
            units = tuple(range(start * width, end * width))
            found.append(Tile(stage.layer.name, units, tiling))
    return tuple(found)


def vertices_of(graph: Graph, tiles: tuple[Tile, ...]) -> tuple[Vertex, ...]:
    """What each tile costs."""
    stages = {stage.layer.name: stage for stage in graph.stages}
    first: set[str] = set()
    found = []
    for tile in tiles:
        found.append(_vertex(stages[tile.layer], tile, tile.layer not in first))
        first.add(tile.layer)
    return tuple(found)


def flows_of(graph: Graph, tiles: tuple[Tile, ...]) -> tuple[Flow, ...]:
    """What goes from tiles to tiles."""
    places = {
        stage.layer.name: tuple(n for n, tile in enumerate(tiles) if tile.layer == stage.layer.name)
        for stage in graph.stages
    }
    found: list[Flow] = []
    for stage, after in zip(graph.stages, graph.stages[1:], strict=False):
        mine, theirs = places[stage.layer.name], places[after.layer.name]
        if mine and tiles[mine[0]].side == "input" and len(mine) > 1:
            found.append(Flow(stage.layer.name, mine[:1], (prod(stage.map_shape),), mine[1:]))
        if stage.layer.place == "stem" and after.layer.place == "stem":
            continue
        size = prod(stage.layer.shape[1:])
        if not mine:
            made: list[tuple[tuple[int, ...], set[int]]] = [((), set(range(stage.layer.channels)))]
        elif tiles[mine[0]].side == "input":
            made = [(mine[:1], set(range(stage.layer.channels)))]
        else:
            made = [((number,), set(tiles[number].units)) for number in mine]
        exits = after.layer.place == "tail"
        if exits or tiles[theirs[0]].side == "output":
            sources = tuple(number for source, _ in made for number in source)
            numbers = tuple(len(units) * size for _, units in made)
            found.append(Flow(stage.layer.name, sources, numbers, theirs, exits))
            continue
        width = columns_per_channel(stage.layer, after.layer)
        for number in theirs:
            needed = {unit // width for unit in tiles[number].units}
            cut = [(source, len(units & needed) * size) for source, units in made if units & needed]
            sources = tuple(each for source, _ in cut for each in source)
            found.append(
                Flow(stage.layer.name, sources, tuple(count for _, count in cut), (number,))
            )
    return tuple(found)


def slices_of(tiles: tuple[Tile, ...], slicing: Slicing) -> tuple[Slice, ...]:
    """Who hosts what, for the topology."""
    return tuple(
        Slice(f"device-{host}", tile.layer, tile.units, tile.side)
        for host, tile in zip(slicing.hosts, tiles, strict=True)
    )


def owner_flops(graph: Graph) -> float:
    """FLOP of stem and tail on one sample: the first layer needs no gradient of its input."""
    costs = [3 * stage.flops for stage in (*graph.placed("stem"), *graph.placed("tail"))]
    return sum(costs) - graph.stages[0].flops


def _vertex(stage: Stage, tile: Tile, first: bool) -> Vertex:
    layer = stage.layer
    weight = stage.module.get_parameter("weight")
    biases = layer.channels if len(layer.parameters) > 1 else 0
    if tile.side == "output":
        share, bias = len(tile.units) / layer.channels, len(tile.units) if biases else 0
        output = len(tile.units) * prod(layer.shape[1:])
    else:
        share, bias = len(tile.units) / stage.columns, biases if first else 0
        output = prod(stage.map_shape) + prod(layer.shape) if first else 0
    parameters = round(weight.numel() * share) + bias
    return Vertex(layer.name, 3 * stage.flops * share, parameters, output)
