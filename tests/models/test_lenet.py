"""LeNet-5 has the published sizes and refuses other images."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from privbench.errors import UsageError
from privbench.models.lenet import LeNet5


def test_parameters_are_those_of_the_paper_but_for_the_full_second_convolution(count) -> None:
    first = 6 * (5 * 5 + 1)
    second = 16 * (6 * 5 * 5 + 1)  # the paper's has 1,516: not every map sees every other
    linear = 120 * (16 * 5 * 5 + 1) + 84 * (120 + 1) + 10 * (84 + 1)
    assert count(LeNet5()) == count(LeNet5(size=32)) == first + second + linear == 61_706


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 32, 5)])
def test_it_keeps_the_rules(keeps_the_rules, activation, channels, size, classes) -> None:
    torch.manual_seed(0)
    module = LeNet5(channels, size, classes, (4, 8), [12, 9], activation)
    keeps_the_rules(module, (channels, size, size))


def test_28_pixels_are_padded_to_the_papers_32() -> None:
    torch.manual_seed(0)
    small = LeNet5().eval()
    large = LeNet5(size=32)
    large.load_state_dict(small.state_dict())
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    padded = nn.functional.pad(x, (2, 2, 2, 2))
    torch.testing.assert_close(large.eval()(padded), small(x))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 64}, r"model.size=64; LeNet-5 takes images of 28 or 32 .*model=alexnet"),
        ({"size": "28"}, r"28 or 32"),
        ({"channels": 0}, r"model.channels=0; expected a whole number of at least 1"),
        ({"classes": 2.5}, r"model.classes=2.5"),
        ({"classes": True}, r"model.classes=True"),
        ({"convolutions": [6]}, r"model.convolutions=\[6\]; expected a list of 2"),
        ({"widths": (1, 2, 3)}, r"model.widths=.*for example model.widths=\[120,84\]"),
        ({"activation": "swish"}, r"model.activation=swish; expected one of relu, sigmoid, tanh"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words) -> None:
    with pytest.raises(UsageError, match=words):
        LeNet5(**arguments)
