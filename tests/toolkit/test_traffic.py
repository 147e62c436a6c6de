"""What was seen of whom: every row in a block of all that was seen of it."""

from dataclasses import replace

import pytest
import torch

from privbench.contract import (
    Layer,
    Message,
    Net,
    Own,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
    blocks,
)
from privbench.errors import NotApplicable
from privbench.toolkit.traffic import each_known, seen_of_victims

LAYERS = (
    Layer("one", "one", "body", 4, (4, 2), ("one.weight",)),
    Layer("two", "two", "body", 3, (3,), ("two.weight",), ("one",)),
)
TOPOLOGY = Topology("slicenet", ("a", "b"), ("a", "b"), Net(Spec("x")), 2, 2, LAYERS)
VALUES = {"one": torch.arange(3 * 6 * 4 * 2.0).reshape(3, 6, 4, 2), "two": torch.rand(3, 6, 3)}


def message(step, layer, rows, units=None, kind="activation", sender="a"):
    held = range(VALUES[layer].shape[2]) if units is None else units
    payload = VALUES[layer][step][torch.tensor(rows)][:, list(held)]
    numbers = torch.tensor(rows)
    return Message(step, "train", sender, "b", kind, layer, units, payload, numbers)


def view(messages, victims, own=()):
    rows = torch.tensor(own).reshape(-1, 2)
    held = Own(rows, Samples(torch.rand(len(rows), 1))) if len(rows) else None
    return View(Seat("s", "peer"), TOPOLOGY, torch.tensor(victims), tuple(messages), own=held)


def slow(messages, layer):
    """Value by value: what was seen of each row."""
    seen = {}
    for each in messages:
        if each.layer == layer.name:
            for i, row in enumerate(each.rows.tolist()):
                for j, unit in enumerate(each.units or range(layer.channels)):
                    seen.setdefault((each.step, row), {})[unit] = each.payload[i, j]
    return seen


def test_each_row_is_in_one_block_with_all_that_was_seen_of_it():
    messages = [
        message(0, "one", [0, 1, 2], (0, 1)),
        message(0, "one", [2, 3], (3, 1)),
        message(1, "one", [4, 0]),
        message(2, "one", [5, 1], (1, 0)),
        message(2, "two", [1]),
    ]
    found, expected = blocks(messages, LAYERS[0], "activation"), slow(messages, LAYERS[0])
    assert [block.units for block in found] == [(0, 1, 2, 3), (0, 1, 3), (0, 1), (1, 3)]
    told = {}
    for block in found:
        assert torch.equal(block.rows, torch.unique(block.rows, dim=0))
        for row, payload in zip(block.rows.tolist(), block.payload, strict=True):
            told[tuple(row)] = dict(zip(block.units, payload, strict=True))
    assert told.keys() == expected.keys()
    for row, units in expected.items():
        assert told[row].keys() == units.keys()
        assert all(torch.equal(told[row][unit], value) for unit, value in units.items())


def test_nothing_seen_is_no_block():
    assert blocks([], LAYERS[0], "activation") == ()
    assert seen_of_victims(view([], [[0, 1]])) == ()


def test_each_victim_is_told_by_the_shallowest_layer_where_it_was_seen():
    messages = [
        message(0, "one", [0, 1], (0, 1)),
        message(0, "one", [2], (0,)),
        message(0, "two", [0, 1, 2, 3]),
    ]
    parts = seen_of_victims(view(messages, [[0, 0], [0, 2], [0, 3], [1, 5]]))
    assert [(p.layer.name, p.seen.units, p.victims.tolist()) for p in parts] == [
        ("one", (0, 1), [0]),
        ("one", (0,), [1]),
        ("two", (0, 1, 2), [2]),
    ]
    assert torch.equal(parts[1].features(torch.tensor([[0, 2]])), VALUES["one"][0, 2, :1])


def test_own_rows_stand_beside_victims_with_the_units_of_these():
    messages = [message(0, "one", [0, 1]), message(0, "one", [2], (1, 2))]
    (part,) = seen_of_victims(view(messages, [[0, 2]], own=[[0, 0], [0, 1]]))
    assert part.seen.units == (1, 2) and part.seen.rows[:, 1].tolist() == [0, 1, 2]
    assert torch.equal(part.seen.payload, VALUES["one"][0, :3, 1:3])


def test_partial_sums_of_a_unit_are_added_up_where_the_same_senders_are_known():
    def part(sender, rows, units):
        return message(0, "two", rows, units, "partial_sum", sender)

    messages = [part("a", [0, 1, 2], (0, 1)), part("b", [0, 1], (1, 2))]
    one, other = seen_of_victims(view(messages, [[0, 0], [0, 2]], own=[[0, 1]]))
    value = VALUES["two"][0]
    assert one.seen.units == (0, 1, 2) and one.seen.rows[:, 1].tolist() == [0, 1]
    assert torch.equal(one.seen.payload, value[:2] * torch.tensor([1.0, 2.0, 1.0]))
    assert other.seen.units == (0, 1) and torch.equal(other.seen.payload, value[:3, :2])


def test_a_part_without_knowledge_costs_no_other_part():
    messages = [message(0, "one", [0], (0, 1)), message(0, "two", [1])]
    parts = seen_of_victims(view(messages, [[0, 0], [0, 1]]))

    def known(part):
        if part.layer.name == "one":
            raise NotApplicable("unknown weights")
        return len(part.victims)

    assert [count for _, count in each_known(parts, known)] == [1]
    with pytest.raises(NotApplicable, match="unknown weights"):
        each_known(parts[:1], known)


def test_rows_in_sixteen_bits_are_put_together_in_single_precision():
    half = replace(message(0, "one", [0]), payload=VALUES["one"][0, :1].half())
    (block,) = blocks([half], LAYERS[0], "activation")
    assert block.payload.dtype == torch.float32
