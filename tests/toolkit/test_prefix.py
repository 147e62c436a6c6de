"""The network before a cut equals the whole network stopped there, with the right step's weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from privbench.contract import Layer, Net, Slice, Spec, Topology, Weights
from privbench.errors import NotApplicable
from privbench.toolkit.prefix import Prefixes, prefix, stack

NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": (9, 6, 5, 4)}))
LAYERS = (
    Layer("linear0", "relu0", "stem", 6, (6,), ("linear0.weight", "linear0.bias")),
    Layer("linear1", "relu1", "body", 5, (5,), ("linear1.weight", "linear1.bias"), ("linear0",)),
    Layer("linear2", "linear2", "tail", 4, (4,), ("linear2.weight", "linear2.bias"), ("linear1",)),
)
SLICES = (Slice("device-0", "linear1", (0, 2, 4)), Slice("device-1", "linear1", (1, 3)))
TOPOLOGY = Topology("slicenet", ("device-0", "device-1"), ("device-0",), NET, 4, 2, LAYERS, SLICES)


def _state(seed: int) -> dict[str, Tensor]:
    return dict(NET.initialised(torch.Generator().manual_seed(seed)).weights or {})


def _held(step: int, layer: Layer) -> Weights:
    state = _state(step)
    return Weights(step, layer.name, None, {name: state[name] for name in layer.parameters})


def _sliced(step: int, piece: Slice) -> Weights:
    state, units = _state(step), torch.tensor(piece.units)
    names = TOPOLOGY.layer(piece.layer).parameters
    return Weights(step, piece.layer, piece.units, {name: state[name][units] for name in names})


def _stopped(step: int, modules: int, x: Tensor) -> Tensor:
    module = Net(NET.spec, _state(step)).module()
    return torch.nn.Sequential(*list(module)[:modules])(x)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(7, 1, 3, 3, generator=torch.Generator().manual_seed(1))


def test_equals_the_whole_network_up_to_the_cut(x: Tensor) -> None:
    whole = [Weights(2, "", None, _state(2))]
    assert torch.equal(prefix(TOPOLOGY, whole, "linear0", 2)(x), _stopped(2, 3, x))
    assert torch.equal(prefix(TOPOLOGY, whole, "linear1", 2)(x), _stopped(2, 5, x))


def test_takes_the_latest_earlier_weights_and_else_the_first_later(x: Tensor) -> None:
    held = [_held(step, LAYERS[0]) for step in (5, 1, 3)]
    for asked, used in ((1, 1), (2, 1), (4, 3), (9, 5), (0, 1)):
        found = prefix(TOPOLOGY, held, "linear0", asked)(x)
        assert torch.equal(found, _stopped(used, 3, x)), asked


def test_a_coalition_that_covers_a_layer_puts_it_together(x: Tensor) -> None:
    held = [_held(1, LAYERS[0]), *(_sliced(1, piece) for piece in SLICES)]
    assert torch.equal(prefix(TOPOLOGY, held, "linear1", 1)(x), _stopped(1, 5, x))


def test_says_which_weights_lack() -> None:
    held = [_held(1, LAYERS[0]), _sliced(1, SLICES[0])]
    with pytest.raises(NotApplicable, match=r"'linear1' but does not know 'linear1\.weight'"):
        prefix(TOPOLOGY, held, "linear1", 1)


def test_stacked_equals_one_after_another(x: Tensor) -> None:
    held = Prefixes(TOPOLOGY, [_held(step, LAYERS[0]) for step in range(3)])
    parts = [held.at("linear0", step) for step in range(3)]
    inputs = torch.stack([x, x.flip(0), x / 2])
    found = stack(parts)(inputs)
    assert found.shape == (3, 7, 6)
    for part, mine, row in zip(parts, inputs, found, strict=True):
        torch.testing.assert_close(row, part(mine))


def test_convolutions_keep_their_channels() -> None:
    parts = {
        "conv": ["torch.nn.Conv2d", {"in_channels": 1, "out_channels": 3, "kernel_size": 3}],
        "relu": ["torch.nn.ReLU", {}],
        "flatten": ["torch.nn.Flatten", {}],
        "head": ["torch.nn.Linear", {"in_features": 108, "out_features": 2}],
    }
    net = Net(Spec("privbench.models.described.sequential", {"parts": parts}))
    layer = Layer("conv", "flatten", "stem", 3, (3, 36), ("conv.weight", "conv.bias"))
    topology = Topology("slicenet", (), (), net, 1, 1, (layer,))
    state = net.initialised(torch.Generator().manual_seed(0)).weights or {}
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = prefix(topology, [Weights(0, "", None, state)], "conv", 0)(x)
    module = Net(net.spec, state).module()
    assert torch.equal(found, torch.nn.Sequential(*list(module)[:2])(x).flatten(2))
