"""The oracle answers as far as it was agreed, and counts."""

from __future__ import annotations

import pytest
import torch

from privbench.contract import Net, Seat, Spec
from privbench.errors import AttackError
from privbench.oracle import CountingOracle

NET = Net(Spec("torch.nn.Linear", {"in_features": 3, "out_features": 4}))


@pytest.fixture
def net() -> Net:
    return NET.initialised(torch.Generator().manual_seed(0))


def _seat(*grants: str) -> Seat:
    return Seat("client", "outsider", grants=frozenset(grants))


def test_it_counts_inputs_and_stops_at_the_budget(net: Net) -> None:
    oracle = CountingOracle(net, 10, _seat("oracle_probabilities"))
    oracle(torch.zeros(4, 3))
    oracle(torch.zeros(6, 3))
    assert oracle.count == 10
    with pytest.raises(AttackError, match=r"10 of 10 .* raise threat\.budget\.queries"):
        oracle(torch.zeros(1, 3))


def test_a_query_beyond_the_budget_is_not_answered_in_part(net: Net) -> None:
    oracle = CountingOracle(net, 10, _seat("oracle_probabilities"))
    with pytest.raises(AttackError):
        oracle(torch.zeros(11, 3))
    assert oracle.count == 0
    assert len(oracle(torch.zeros(10, 3))) == 10


def test_without_a_budget_it_still_counts(net: Net) -> None:
    oracle = CountingOracle(net, None, _seat("oracle_labels"))
    for _ in range(3):
        oracle(torch.zeros(1000, 3))
    assert oracle.count == 3000


def test_who_may_ask_for_labels_gets_no_probabilities(net: Net) -> None:
    x = torch.rand(8, 3, generator=torch.Generator().manual_seed(1))
    wanted = net.module()(x).softmax(dim=1)
    probabilities = CountingOracle(net, None, _seat("oracle_probabilities"))(x)
    labels = CountingOracle(net, None, _seat("oracle_labels"))(x)
    assert torch.equal(probabilities, wanted)
    assert not probabilities.requires_grad
    assert labels.dtype == torch.int64
    assert torch.equal(labels, wanted.argmax(dim=1))
