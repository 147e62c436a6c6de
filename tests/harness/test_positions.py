"""Depth, share of channels, epochs and size of a seat, from its view."""

from __future__ import annotations

import torch

from privbench.contract import Layer, Message, Net, Seat, Spec, Topology, View
from privbench.positions import Position, depths_of, position_of

NET = Net(Spec("torch.nn.Flatten"))
LAYERS = (
    Layer("a", "a", "stem", 8, (8,), ()),
    Layer("b", "b", "body", 4, (4,), (), ("a",)),
    Layer("c", "c", "body", 4, (4,), (), ("b", "a")),
    Layer("d", "d", "tail", 2, (2,), (), ("c",)),
)
TOPOLOGY = Topology("slicenet", ("x", "y"), ("y",), NET, 6, 2, LAYERS)


def _message(step: int, kind: str, layer: str, units: tuple[int, ...], rows: list[int]) -> Message:
    payload = torch.zeros(len(rows), len(units))
    return Message(step, "train", "y", "x", kind, layer, units, payload, torch.tensor(rows))


HOST = Seat("x", "peer", ("x",))


def _view(*messages: Message, seat: Seat = HOST) -> View:
    return View(seat, TOPOLOGY, torch.tensor([[0, 0], [3, 1]]), messages)


def test_the_longest_way_counts() -> None:
    assert depths_of(TOPOLOGY) == {"a": 1, "b": 2, "c": 3, "d": 4}


def test_only_victims_rows_count() -> None:
    """Own rows cross whole; of strangers' three channels of eight were seen, in two epochs."""
    messages = (
        _message(0, "activation", "a", tuple(range(8)), [5, 6]),
        _message(0, "activation", "a", (0, 1), [0]),
        _message(3, "activation", "a", (1, 2), [1]),
        _message(3, "activation", "b", (0,), [1]),
    )
    assert position_of(_view(*messages)) == Position(1, 3 / 8, 2, 1)


def test_gradients_count_where_no_value_was_seen() -> None:
    wire = Seat("wire", "network", everything=True)
    view = _view(_message(0, "gradient", "c", (0, 1), [0]), seat=wire)
    assert position_of(view) == Position(3, 0.5, 1, None)


def test_a_view_without_layers_has_no_depth() -> None:
    assert position_of(_view()) == Position(None, None, None, 1)
