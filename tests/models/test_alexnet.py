"""The AlexNet-style network: its widths, its vertices, its rules."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import pytest
import torch
from torch import nn

from privbench.errors import UsageError
from privbench.models.alexnet import AlexNet


def _slow_twin(module: AlexNet, x: torch.Tensor) -> torch.Tensor:
    """The source's order: ReLU, then pooling."""
    for number in range(5):
        x = torch.relu(module.get_submodule(f"conv{number}")(x))
        if number in (0, 1, 4):
            x = nn.functional.max_pool2d(x, 2)
    x = x.flatten(1)
    x = torch.relu(module.linear0(x))
    x = torch.relu(module.linear1(x))
    return module.linear2(x)


def test_parameters_are_those_counted_by_hand(count) -> None:
    maps = [3, 64, 192, 384, 256, 256]
    convolutions = sum(b * (9 * a + 1) for a, b in pairwise(maps))
    features = [256 * 4 * 4, 1024, 512, 10]
    linear = sum(b * (a + 1) for a, b in pairwise(features))
    assert count(AlexNet()) == convolutions + linear == 6_976_842


def test_by_default_it_is_cut_into_675_vertices_of_which_the_body_has_656() -> None:
    outputs = [
        each.weight.shape[0]
        for each in AlexNet().modules()
        if isinstance(each, nn.Conv2d | nn.Linear)
    ]
    blocks = [ceil(each / 4) for each in outputs]
    assert (sum(blocks), sum(blocks[1:-1])) == (675, 656)


@pytest.mark.parametrize(
    ("channels", "size", "classes", "dropout"),
    [(3, 32, 10, 0.0), (1, 28, 26, 0.0), (1, 8, 2, 0.0), (3, 16, 4, 0.2)],
)
def test_it_keeps_the_rules(keeps_the_rules, channels, size, classes, dropout) -> None:
    torch.manual_seed(0)
    module = AlexNet(channels, size, classes, (4, 6, 8, 6, 4), (12, 9), dropout)
    keeps_the_rules(module, (channels, size, size))


def test_pooling_before_relu_changes_neither_values_nor_gradients() -> None:
    torch.manual_seed(0)
    module = AlexNet(1, 16, 3, (4, 6, 8, 6, 4), (12, 9)).double()
    x = torch.rand(3, 1, 16, 16, dtype=torch.float64).requires_grad_()
    ours, theirs = module(x), _slow_twin(module, x)
    assert torch.equal(ours, theirs)
    given = [x, *module.parameters()]
    pairs = zip(
        torch.autograd.grad(ours.square().sum(), given),
        torch.autograd.grad(theirs.square().sum(), given),
        strict=True,
    )
    assert all(torch.equal(one, other) for one, other in pairs)


def test_signals_neither_fade_nor_grow_on_the_way_through_eight_layers() -> None:
    torch.manual_seed(0)
    module = AlexNet(3, 16, 10, (32, 32, 32, 32, 32), (64, 64))
    x = torch.randn(64, 3, 16, 16)
    for name, part in module.named_children():
        x = part(x)
        if name.startswith("relu"):
            assert 0.5 < float(x.detach().square().mean().sqrt()) < 4
    assert name == "linear2" and float(x.detach().abs().max()) < 1


def test_dropout_stands_before_each_hidden_linear_layer_and_draws_in_training_alone() -> None:
    torch.manual_seed(0)
    module = AlexNet(1, 8, 3, (4, 6, 8, 6, 4), (12, 9), dropout=0.5)
    names = [name for name, _ in module.named_children()]
    assert [names[names.index(f"dropout{n}") + 2 - n] for n in (0, 1)] == ["linear0", "linear1"]
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(module.eval()(x), module(x))
    assert not torch.equal(module.train()(x), module(x))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 7}, r"model.size=7; expected a whole number of at least 8, .*model.size=32"),
        ({"channels": -1}, r"model.channels=-1"),
        ({"classes": 0}, r"model.classes=0"),
        ({"convolutions": [64, 192]}, r"list of 5 positive .*=\[64,192,384,256,256\]"),
        ({"convolutions": [1, 2, 3, 4, 0]}, r"list of 5 positive"),
        ({"widths": 1024}, r"model.widths=1024; expected a list of 2"),
        ({"dropout": 1}, r"model.dropout=1; expected a number from 0 to below 1"),
        ({"dropout": "half"}, r"model.dropout=half"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words) -> None:
    with pytest.raises(UsageError, match=words):
        AlexNet(**arguments)
