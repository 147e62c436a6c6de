"""Noise has the size that was asked for, is drawn from what is passed, and touches nothing else."""

from __future__ import annotations

import pytest
import torch

from defenses.gaussian_noise import GaussianNoise
from defenses.none import NoDefense
from privbench.contract import Message
from privbench.errors import UsageError


def _message() -> Message:
    payload = torch.rand(400, 50, generator=torch.Generator().manual_seed(0))
    return Message(3, "train", "a", "b", "activation", "net.0", None, payload, torch.arange(400))


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("std", [0.1, 2.0])
def test_adds_independent_normal_noise(std: float) -> None:
    message = _message()
    noise = GaussianNoise(std=std).send(message, _rng()).payload - message.payload
    assert abs(float(noise.mean())) < 0.02 * std
    assert float(noise.std()) == pytest.approx(std, rel=0.02)
    across = torch.corrcoef(noise.T) - torch.eye(50)
    assert float(across.abs().max()) < 0.25


def test_repeats_by_its_generator_alone_and_leaves_the_message_as_it_was() -> None:
    message, before = _message(), torch.random.get_rng_state()
    payload = message.payload.clone()
    one, two = (GaussianNoise().send(message, _rng()) for _ in range(2))
    assert torch.equal(one.payload, two.payload)
    assert torch.equal(message.payload, payload)
    assert torch.equal(before, torch.random.get_rng_state())
    assert (one.rows is message.rows, one.layer, one.step) == (True, "net.0", 3)


def test_keeps_the_type_of_the_payload() -> None:
    message = Message(
        0, "train", "a", "b", "activation", "", None, torch.zeros(2, 3).double(), torch.arange(2)
    )
    assert GaussianNoise().send(message, _rng()).payload.dtype == torch.float64


def test_gives_no_formal_guarantee() -> None:
    assert GaussianNoise().cost() is None


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_refuses_what_is_no_standard_deviation(std: float) -> None:
    with pytest.raises(UsageError, match=r"gaussian_noise\.std"):
        GaussianNoise(std=std)


def test_no_noise_and_no_defense_send_the_message_itself() -> None:
    message = _message()
    assert GaussianNoise(std=0).send(message, _rng()) is message
    assert NoDefense().send(message, _rng()) is message
