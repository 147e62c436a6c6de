"""The small transformer: attention by hand, patches in order, rules."""

from __future__ import annotations

import pytest
import torch

from privbench.errors import UsageError
from privbench.models.transformer import PatchEmbedding, SelfAttention, Transformer


def test_parameters_are_those_counted_by_hand(count) -> None:
    embed = 64 * (3 * 4 * 4 + 1) + 8 * 8 * 64
    attention = 3 * 64 * (64 + 1) + 64 * (64 + 1)
    perceptron = 256 * (64 + 1) + 64 * (256 + 1)
    block = attention + perceptron + 2 * 2 * 64
    assert count(Transformer()) == embed + 4 * block + 2 * 64 + 10 * (64 + 1) == 207_946


@pytest.mark.parametrize(
    ("channels", "size", "classes", "patch"), [(3, 32, 10, 8), (1, 28, 4, 7), (1, 8, 2, 8)]
)
def test_it_keeps_the_rules(keeps_the_rules, channels, size, classes, patch) -> None:
    torch.manual_seed(0)
    module = Transformer(channels, size, classes, patch, width=12, depth=2, heads=3, expansion=2)
    if size == patch:  # one patch: attention on itself alone, so queries and keys do not matter
        assert module(torch.rand(2, channels, size, size)).shape == (2, classes)
    else:
        keeps_the_rules(module, (channels, size, size))


def test_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(6, 2).double()
    x = torch.rand(2, 5, 6, dtype=torch.float64)
    queries, keys, values = attention.queries_keys_values(x).split(6, dim=2)
    heads = []
    for head in (slice(0, 3), slice(3, 6)):
        scores = queries[..., head] @ keys[..., head].transpose(1, 2) / 3**0.5
        heads.append(scores.softmax(2) @ values[..., head])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, 2)))


def test_patches_come_row_by_row_and_each_is_moved_by_its_place() -> None:
    torch.manual_seed(0)
    embed = PatchEmbedding(2, 6, 3, 5)
    x = torch.rand(1, 2, 6, 6)
    rows = embed(x)
    for place, (top, left) in enumerate([(0, 0), (0, 3), (3, 0), (3, 3)]):
        patch = x[0, :, top : top + 3, left : left + 3].flatten()
        expected = embed.conv.weight.flatten(1) @ patch + embed.conv.bias
        torch.testing.assert_close(rows[0, place], expected + embed.positions.weight[place])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 30}, r"model.size=30 is no multiple of model.patch=4; type .*model.patch=3"),
        ({"size": 2}, r"model.size=2 is no multiple of model.patch=4; type .*model.patch=2"),
        ({"heads": 5}, r"model.width=64 is no multiple of model.heads=5; type .*model.heads=4"),
        ({"depth": 0}, r"model.depth=0"),
        ({"expansion": 1.5}, r"model.expansion=1.5"),
        ({"width": None}, r"model.width=None"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words) -> None:
    with pytest.raises(UsageError, match=words):
        Transformer(**arguments)
