"""Python objects as networks-as-data: rebuilt ones compute the same."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from privbench.errors import UsageError
from privbench.models.described import as_net
from privbench.models.mlp import Mlp


def _trained() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Sequential(nn.MaxPool2d(2), nn.Flatten()),
        nn.Linear(64, 10),
    )


def test_a_sequential_is_rebuilt_part_by_part() -> None:
    module = _trained().eval()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(as_net(module).module()(x), module(x))


def test_a_class_is_named_and_holds_no_weights() -> None:
    net = as_net(Mlp)
    assert (net.spec.target, net.weights) == ("privbench.models.mlp.Mlp", None)


def test_a_trained_mlp_of_ours_is_rebuilt_from_its_widths() -> None:
    module = Mlp(widths=[6, 4, 2]).eval()
    assert torch.equal(as_net(module).module()(torch.ones(1, 6)), module(torch.ones(1, 6)))


@pytest.mark.parametrize("model", [lambda: nn.Linear(2, 2), functools.partial(nn.Linear, 2, 2)])
def test_what_has_no_import_name_is_refused(model: object) -> None:
    with pytest.raises(UsageError, match="top level of a module"):
        as_net(model)


def test_a_module_that_hides_its_arguments_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be rebuilt"):
        as_net(nn.Sequential(nn.TransformerEncoderLayer(8, 2)))
