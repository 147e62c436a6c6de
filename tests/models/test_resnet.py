"""Residual networks: depth, gates, depth-wise convolutions, rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from privbench.errors import UsageError
from privbench.models.resnet import Gate, ResNet


def _by_hand(blocks: int) -> int:
    """Parameters of dense residual networks of widths 16, 32, 64."""
    total = 16 * 3 * 9 + 2 * 16 + 64 * 10 + 10
    before = 16
    for stage, width in enumerate((16, 32, 64)):
        for number in range(blocks):
            total += 9 * width * (before + width) + 4 * width
            total += before * width + 2 * width if stage and not number else 0
            before = width
    return total


@pytest.mark.parametrize(("blocks", "depth", "whole"), [(1, 8, 78_042), (3, 20, 272_474)])
def test_parameters_are_those_counted_by_hand(count, blocks, depth, whole) -> None:
    module = ResNet(blocks=blocks)
    assert count(module) == _by_hand(blocks) == whole
    layers = [n for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum("shortcut" not in name for name in layers) == depth


def test_gates_and_depthwise_blocks_have_the_parameters_of_their_sources(count) -> None:
    gates = sum(2 * w * (w // 4) + w // 4 + w for w in (16, 32, 64))
    assert count(ResNet(se=True)) - count(ResNet()) == gates
    spared = 0
    for before, after in ((16, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)):
        spared += 9 * before * after - (9 * before + 2 * before + before * after)
    assert count(ResNet()) - count(ResNet(depthwise=True)) == spared


@pytest.mark.parametrize("se", [False, True])
@pytest.mark.parametrize("depthwise", [False, True])
def test_it_keeps_the_rules(keeps_the_rules, se, depthwise) -> None:
    torch.manual_seed(0)
    module = ResNet(3, 16, 5, 1, [8, 12, 16], groups=2, se=se, depthwise=depthwise)
    keeps_the_rules(module, (3, 16, 16))


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 4), (1, 9)])
def test_sides_need_not_be_powers_of_two(keeps_the_rules, channels, size) -> None:
    torch.manual_seed(0)
    module = ResNet(channels, size, 3, 2, (4, 4, 8), groups=1)
    keeps_the_rules(module, (channels, size, size))


def test_a_gate_multiplies_channels_by_what_the_linear_layers_of_the_source_give() -> None:
    torch.manual_seed(0)
    gate = Gate(8)
    x = torch.rand(2, 8, 3, 3)
    hidden = torch.relu(x.mean((2, 3)) @ gate.squeeze.weight.flatten(1).T + gate.squeeze.bias)
    factor = torch.sigmoid(hidden @ gate.excite.weight.flatten(1).T + gate.excite.bias)
    torch.testing.assert_close(gate(x), x * factor[:, :, None, None])


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(RuntimeError):
        ResNet(size=32)(torch.zeros(1, 3, 28, 28))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 3}, r"model.size=3; expected a whole number of at least 4"),
        ({"blocks": 0}, r"model.blocks=0"),
        ({"widths": (16, 32)}, r"list of 3 positive .*model.widths=\[16,32,64\]"),
        ({"groups": 5}, r"model.groups=5 does not divide 16 channels .*model.groups=1"),
        ({"groups": 32}, r"model.groups=32 does not divide 16"),
        ({"se": 1}, r"model.se=1; expected true or false"),
        ({"depthwise": "yes"}, r"model.depthwise=yes"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words) -> None:
    with pytest.raises(UsageError, match=words):
        ResNet(**arguments)
