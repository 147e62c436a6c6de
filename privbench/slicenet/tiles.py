"""How the stages of a network are tiled, and the slicing problem that follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm, prod

from privbench.contract import Layer, Need, Slice
from privbench.errors import UsageError
from privbench.slicenet.graph import Graph, Operand, Stage
from privbench.slicenet.problem import Flow, Slicing, Vertex

TILINGS = ("output", "input", "grid")


@dataclass(frozen=True, eq=False)
class Tile:
    """A block of a body stage: what one host computes.

    Args:
        layer: name of the stage.
        units: output channels.
        columns: of the weight's second axis; None = all.
        inputs: indices of the operand's second axis that it works on; None = all.
        needs: channels of other layers.
        reduces: does it finish its units?
        whole: is it all of the stage?
    """

    layer: str
    units: tuple[int, ...]
    columns: tuple[int, ...] | None
    inputs: tuple[int, ...] | None
    needs: tuple[Need, ...]
    reduces: bool = True
    whole: bool = False


def tiles_of(graph: Graph, tiling: str, granularity: int) -> tuple[Tile, ...]:
    """Blocks of every body stage, of at most ``granularity`` channels where borders allow it.

    - ``output``: a block computes some output channels from all input channels of its group.
    - ``input``: a block holds the weights of some input channels, and adds a partial sum to all
      output channels of its group; the first block of a group finishes them.
    - ``grid``: both.

    Joins are cut by channels, whatever the tiling; what cannot be split is one block. A norm over
    groups of channels keeps each group together (the block may then be larger).

    Raises:
        UsageError: unknown tiling, or a granularity below 1.
    """
    if tiling not in TILINGS:
        raise UsageError(f"tiling='{tiling}' is unknown; expected one of {', '.join(TILINGS)}")
    if granularity < 1:
        raise UsageError(f"regime.granularity={granularity}; expected at least 1 channel a block")
    return tuple(
        tile for stage in graph.placed("body") for tile in _tiles(stage, tiling, granularity)
    )


def _tiles(stage: Stage, tiling: str, granularity: int) -> Iterator[Tile]:
    channels, name = stage.layer.channels, stage.layer.name
    sources = [_sources(operand) for operand in stage.operands]
    if stage.sort in ("whole", "loss"):
        yield Tile(name, tuple(range(channels)), None, None, _all(stage), whole=True)
    elif stage.sort == "join":
        for units in _blocks(range(channels), granularity, stage.border):
            whole = len(units) == channels
            needs = _all(stage) if whole else _needs(sources, units, stage)
            yield Tile(name, units, None, units, needs, whole=whole)
    else:
        yield from _layer_tiles(stage, tiling, granularity, sources[0])


def _layer_tiles(
    stage: Stage, tiling: str, granularity: int, sources: list[tuple[str, int]]
) -> Iterator[Tile]:
    channels, groups = stage.layer.channels, stage.groups
    each, columns = channels // groups, stage.weight.shape[1]
    together = lcm(each, stage.border)
    if groups > 1 and (together <= granularity or stage.border > each):
        for units in _blocks(range(channels), granularity, together):
            first, count = units[0] // each, len(units) // each
            inputs = tuple(range(first * columns, (first + count) * columns))
            yield _tile(stage, units, None, inputs, sources)
        return
    out_size = granularity if tiling in ("output", "grid") else each
    in_size = granularity if tiling in ("input", "grid") else len(sources)
    width = stage.operands[0].strands[0].width
    for group in range(groups):
        own = range(group * each, (group + 1) * each)
        for units in _blocks(own, out_size, min(each, stage.border)):
            for local in _blocks(range(columns), in_size * width, width):
                inputs = tuple(group * columns + column for column in local)
                part = local if len(local) < columns else None
                yield _tile(stage, units, part, inputs, sources)


def _tile(
    stage: Stage,
    units: tuple[int, ...],
    columns: tuple[int, ...] | None,
    inputs: tuple[int, ...],
    sources: list[tuple[str, int]],
) -> Tile:
    everything = len(inputs) == len(sources)
    needs = _all(stage) if everything else _needs([sources], inputs, stage)
    whole = everything and len(units) == stage.layer.channels
    reduces = columns is None or columns[0] == 0
    kept = None if everything else inputs
    return Tile(stage.layer.name, units, columns, kept, needs, reduces, whole)


def _blocks(channels: range, size: int, border: int) -> Iterator[tuple[int, ...]]:
    """Channels in chunks of at most ``size``, or of one ``border`` where that is more."""
    step = max(border, size // border * border)
    for start in range(channels.start, channels.stop, step):
        yield tuple(range(start, min(channels.stop, start + step)))


def _sources(operand: Operand) -> list[tuple[str, int]]:
    """The layer and channel behind each index of an operand's second axis."""
    return [
        (strand.source, channel)
        for strand in operand.strands
        for channel in range(strand.channels)
        for _ in range(strand.width)
    ]


def _all(stage: Stage) -> tuple[Need, ...]:
    return tuple(Need(name) for name in stage.layer.inputs)


def _needs(
    sources: Sequence[Sequence[tuple[str, int]]], inputs: Sequence[int], stage: Stage
) -> tuple[Need, ...]:
    found: dict[str, set[int]] = {name: set() for name in stage.layer.inputs}
    for each in sources:
        for index in inputs:
            name, channel = each[index]
            found[name].add(channel)
    return tuple(Need(name, tuple(sorted(units))) for name, units in found.items() if units)


def slices_of(tiles: Sequence[Tile], slicing: Slicing) -> tuple[Slice, ...]:
    """Who hosts what, for the topology."""
    return tuple(
        Slice(
            f"device-{host}", tile.layer, tile.units, tile.columns, tile.needs, tile.reduces,
            tile.whole,
        )
        for host, tile in zip(slicing.hosts, tiles, strict=True)
    )  # fmt: skip


def vertices_of(graph: Graph, tiles: Sequence[Tile]) -> tuple[Vertex, ...]:
    """What each tile costs: 3 forward passes in FLOPs, for the gradients of inputs and weights."""
    stages = {stage.layer.name: stage for stage in graph.stages}
    found = []
    for tile in tiles:
        stage = stages[tile.layer]
        share = len(tile.units) / stage.layer.channels
        if tile.columns is not None:
            share *= len(tile.columns) / stage.weight.shape[1]
        placed = tile_slice(tile)
        parts = [placed.part(tensor) for tensor in stage.tensors.values() if tensor.requires_grad]
        held = sum(part.numel() for part in parts if part is not None)
        output = len(tile.units) * prod(stage.layer.shape[1:]) if tile.reduces else 0
        if tile.columns is not None and tile.reduces:
            output += len(tile.units) * prod(stage.map_shape[1:])  # where partial sums are added
        found.append(Vertex(tile.layer, 3 * stage.flops * share, held, output))
    return tuple(found)


def tile_slice(tile: Tile) -> Slice:
    """A tile of which no host is known yet."""
    return Slice("", tile.layer, tile.units, tile.columns, tile.needs, tile.reduces, tile.whole)


def flows_of(graph: Graph, tiles: Sequence[Tile]) -> tuple[Flow, ...]:
    """What goes from tiles to tiles: outputs to whoever needs them, partial sums to who adds them."""
    places: dict[str, list[int]] = defaultdict(list)
    consumers: dict[str, list[tuple[int, Need]]] = defaultdict(list)
    for number, tile in enumerate(tiles):
        places[tile.layer].append(number)
        for need in tile.needs:
            consumers[need.layer].append((number, need))
    exits = {name for stage in graph.placed("tail") for name in stage.layer.inputs}
    found: list[Flow] = []
    travelling = set(graph.travelling)
    for stage in graph.stages:
        name = stage.layer.name
        found += _sums(stage, [(number, tiles[number]) for number in places[name]])
        if name in travelling:
            makers = [(n, tiles[n]) for n in places[name] if tiles[n].reduces]
            found += _outputs(stage.layer, makers, consumers[name], name in exits)
    return tuple(found)


def _sums(stage: Stage, tiles: list[tuple[int, Tile]]) -> Iterator[Flow]:
    """Partial sums of each block of output channels; between a device's own tiles nothing travels."""
    blocks: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, tile in tiles:
        blocks[tile.units].append(number)
    for units, (reducer, *others) in blocks.items():
        if others:
            size = len(units) * prod(stage.map_shape[1:])
            yield Flow(stage.layer.name, (reducer,), (size,), tuple(others))


def _outputs(
    layer: Layer,
    makers: list[tuple[int, Tile]],
    consumers: list[tuple[int, Need]],
    exits: bool,
) -> Iterator[Flow]:
    """Flows of a layer's channels, those with the same consumers as one."""
    common = [number for number, need in consumers if need.units is None]
    special: dict[int, list[int]] = defaultdict(list)
    for number, need in consumers:
        for unit in need.units or ():
            special[unit].append(number)
    alike: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for unit in range(layer.channels):
        alike[tuple(special[unit])].add(unit)
    size = prod(layer.shape[1:])
    for extra, units in alike.items():
        targets = tuple(sorted({*common, *extra}))
        to_owners = exits and layer.place == "body"
        if not targets and not to_owners:
            continue
        if layer.place == "stem":
            yield Flow(layer.name, (), (len(units) * size,), targets)
            continue
        made = [(number, len(units.intersection(tile.units)) * size) for number, tile in makers]
        sources, numbers = zip(*[each for each in made if each[1]], strict=True)
        yield Flow(layer.name, sources, numbers, targets, to_owners)


def owner_flops(graph: Graph) -> float:
    """FLOP of stem and tail on one sample: what works on samples needs no gradient of its input."""
    stages = (*graph.placed("stem"), *graph.placed("tail"))
    return sum((3 if stage.layer.inputs else 2) * stage.flops for stage in stages)


def owner_output(graph: Graph) -> int:
    """Numbers a sample that an owner keeps: outputs of stem and tail, and what reaches the tail."""
    outside = (*graph.placed("stem"), *graph.placed("tail"))
    exits = {name for stage in graph.placed("tail") for name in stage.layer.inputs}
    reached = [stage for stage in graph.placed("body") if stage.layer.name in exits]
    return sum(stage.output for stage in (*outside, *reached))
