"""How stages are cut into tiles: nothing twice, nothing left out, groups kept together."""

import pytest
import torch
from nets import Chain, Dense, Mobile, Residual, Transformer

from privbench.errors import UsageError
from privbench.slicenet.problem import Slicing
from privbench.slicenet.tiles import flows_of, slices_of, tiles_of, vertices_of
from privbench.slicenet.trace import trace

NETS = [
    (Chain(8, [3, 5], [6, 4]), (1, 8, 8)),
    (Residual(True), (1, 8, 8)),
    (Mobile(), (1, 8, 8)),
    (Dense(), (1, 4, 4)),
    (Transformer(), (1, 8, 8)),
]
TILINGS = ("output", "input", "grid")
CASES = [
    pytest.param(net, shape, tiling, size, id=f"{type(net).__name__}-{tiling}-{size}")
    for net, shape in NETS
    for tiling in TILINGS
    for size in (1, 2, 100)
]


@pytest.mark.parametrize("net, shape, tiling, size", CASES)
def test_every_number_of_the_body_belongs_to_one_tile(net, shape, tiling, size):
    graph = trace(net, shape)
    tiles = tiles_of(graph, tiling, size)
    slices = slices_of(tiles, Slicing(tuple(range(len(tiles)))))
    for stage in graph.placed("body"):
        mine = [piece for piece in slices if piece.layer == stage.layer.name]
        for name, tensor in stage.tensors.items():
            if not tensor.ndim:
                continue
            numbered = torch.arange(tensor.numel()).reshape(tensor.shape)
            parts = [part for piece in mine if (part := piece.part(numbered)) is not None]
            found = torch.cat([part.flatten() for part in parts])
            assert torch.equal(found.sort().values, numbered.flatten()), name
        made = [unit for piece in mine if piece.reduces for unit in piece.units]
        assert sorted(made) == list(range(stage.layer.channels))
    body = [t for s in graph.placed("body") for t in s.tensors.values() if t.requires_grad]
    assert sum(v.parameters for v in vertices_of(graph, tiles)) == sum(t.numel() for t in body)


@pytest.mark.parametrize("net, shape, tiling, size", CASES)
def test_flows_bring_every_tile_what_it_needs(net, shape, tiling, size):
    graph = trace(net, shape)
    tiles = tiles_of(graph, tiling, size)
    sizes = {stage.layer.name: stage.output // stage.layer.channels for stage in graph.stages}
    channels = {stage.layer.name: stage.layer.channels for stage in graph.stages}
    got: dict[tuple[int, str], int] = {}
    for flow in flows_of(graph, tiles):
        partial = flow.sources and flow.targets and tiles[flow.targets[0]].layer == flow.layer
        for target in () if partial else flow.targets:
            got[target, flow.layer] = got.get((target, flow.layer), 0) + sum(flow.numbers)
    wanted = {
        (number, need.layer): sizes[need.layer]
        * (channels[need.layer] if need.units is None else len(need.units))
        for number, tile in enumerate(tiles)
        for need in tile.needs
    }
    assert got == wanted


def test_groups_of_a_norm_and_of_a_convolution_stay_together():
    sizes = {}
    for tile in tiles_of(trace(Residual(), (1, 8, 8)), "output", 1):
        sizes.setdefault(tile.layer, []).append(len(tile.units))
    assert sizes["blocks.0.conv1"] == [2, 2] and sizes["blocks.1.conv2"] == [3, 3]
    assert sizes["add"] == [1] * 4
    tiles = [t for t in tiles_of(trace(Mobile(), (1, 8, 8)), "output", 3) if t.layer == "deep"]
    assert [(t.units, t.needs[0].units) for t in tiles] == [((0, 1, 2),) * 2, ((3, 4, 5),) * 2]
    grouped = [t for t in tiles_of(trace(Mobile(), (1, 8, 8)), "grid", 2) if t.layer == "grouped"]
    assert [(t.units, t.columns) for t in grouped[:4]] == [
        ((0, 1), (0, 1)), ((0, 1), (2,)), ((2, 3), (0, 1)), ((2, 3), (2,)),
    ]  # fmt: skip
    assert grouped[4].needs[0].units == (3, 4)


def test_partial_views_exist_under_input_and_grid_alone():
    graph = trace(Chain(8, [4, 4], [8, 8, 4]), (1, 8, 8))
    seen = {
        tiling: {need.units is None for tile in tiles_of(graph, tiling, 2) for need in tile.needs}
        for tiling in TILINGS
    }
    assert seen == {"output": {True}, "input": {False}, "grid": {False}}


def test_unknown_tilings_and_sizes_are_refused():
    graph = trace(Dense(), (1, 4, 4))
    with pytest.raises(UsageError, match="tiling='rows' is unknown; expected one of output, input"):
        tiles_of(graph, "rows", 2)
    with pytest.raises(UsageError, match="granularity=0"):
        tiles_of(graph, "output", 0)
