"""Rounding keeps few values and the mean, is drawn from what is passed, and touches nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from defenses.quantize import Quantize
from privbench.contract import Message
from privbench.errors import UsageError


def _message(kind: str = "activation") -> Message:
    payload = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(40)
    return Message(3, "train", "a", "b", kind, "net.0", None, payload, rows)


def _rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("bits", [2, 4])
def test_each_row_keeps_few_values_and_its_largest(bits: int) -> None:
    message = _message()
    sent = Quantize(bits=bits).send(message, _rng()).payload
    most = 2**bits - 1
    assert all(len(row.unique()) <= most for row in sent)
    assert torch.allclose(sent.abs().amax(dim=1), message.payload.abs().amax(dim=1))
    step = message.payload.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert bool(((sent - message.payload).abs() <= step * 1.0001).all())


def test_an_update_has_one_scale() -> None:
    assert len(Quantize(bits=3).send(_message("update"), _rng()).payload.unique()) <= 7


def test_the_mean_over_draws_stays() -> None:
    message = _message()
    mean = sum(Quantize(bits=2).send(message, _rng(s)).payload for s in range(400)) / 400
    step = message.payload.abs().amax(dim=1, keepdim=True)
    assert float(((mean - message.payload) / step).abs().max()) < 0.15  # 6 standard errors


def test_repeats_by_its_generator_alone_and_leaves_the_message_as_it_was() -> None:
    message, before = _message(), torch.random.get_rng_state()
    payload = message.payload.clone()
    one, two = (Quantize().send(message, _rng()) for _ in range(2))
    assert torch.equal(one.payload, two.payload) and torch.equal(message.payload, payload)
    assert torch.equal(before, torch.random.get_rng_state())


def test_zeros_single_numbers_and_half_precision() -> None:
    still = replace(_message(), payload=torch.zeros(40, 50))
    assert not Quantize().send(still, _rng()).payload.any()
    half = replace(_message(), payload=_message().payload.half())
    assert Quantize().send(half, _rng()).payload.dtype == torch.float16
    one = Message(0, "train", "a", "b", "update", "bias", None, torch.tensor(0.3))
    assert float(Quantize().send(one, _rng()).payload) == pytest.approx(0.3)
    nothing = replace(_message(), payload=torch.empty(0, 50), rows=torch.arange(0))
    assert Quantize().send(nothing, _rng()) is nothing


@pytest.mark.parametrize("bits", [1, 17, 2.0])
def test_refuses_what_are_no_bits(bits: int) -> None:
    with pytest.raises(UsageError, match=r"quantize\.bits"):
        Quantize(bits=bits)
