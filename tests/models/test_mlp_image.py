"""The perceptron for images is the plain one, said in other words."""

from __future__ import annotations

import pytest
import torch

from privbench.errors import UsageError
from privbench.models.mlp import Mlp
from privbench.models.mlp_image import MlpImage


@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 28, 10), (3, 8, 5)])
def test_it_keeps_the_rules(keeps_the_rules, channels, size, classes) -> None:
    torch.manual_seed(0)
    keeps_the_rules(MlpImage(channels, size, classes, hidden=(9, 7)), (channels, size, size))


def test_it_is_the_plain_one(count) -> None:
    plain = Mlp((3 * 32 * 32, 128, 64, 10))
    image = MlpImage(channels=3, size=32)
    image.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(image(x), plain(x))
    assert count(MlpImage()) == 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10 == 109_386


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 0}, r"model.size=0; expected a whole number of at least 1"),
        ({"channels": "3"}, r"model.channels=3"),
        ({"hidden": [128]}, r"model.hidden=\[128\]; expected a list of 2"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words) -> None:
    with pytest.raises(UsageError, match=words):
        MlpImage(**arguments)
