"""Densities against the normal distribution of scipy and against plain formulas."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import norm

from privbench.errors import UsageError
from privbench.toolkit.densities import FLOOR, confidence, deviations, log_ratio


def test_confidence_is_the_logit_of_the_probability() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 20, 5, generator=rng)
    y = torch.randint(5, (20,), generator=rng)
    p = logits.double().softmax(-1).gather(-1, y.expand(3, -1).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(confidence(logits, y), p.log() - (1 - p).log())


def test_confidence_keeps_its_digits_where_the_model_is_sure() -> None:
    logits = torch.tensor([[40.0, 0.0, 0.0], [0.0, 60.0, -1000.0], [-900.0, 900.0, 0.0]])
    found = confidence(logits, torch.tensor([0, 1, 0])).tolist()
    assert found[0] == pytest.approx(40 - 0.6931471805599453)
    assert found[1] == pytest.approx(60.0)
    assert found[2] == FLOOR


@pytest.fixture
def ensemble() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    member = torch.zeros(8, 30, dtype=torch.bool)
    member[::2] = torch.rand(4, 30, generator=rng) < 0.5
    member[1::2] = ~member[::2]
    member[:2, 0], member[2:4, 0] = torch.tensor([True, False]), torch.tensor([False, True])
    values = torch.randn(8, 30, generator=rng, dtype=torch.float64) + member
    return torch.randn(30, generator=rng, dtype=torch.float64), values, member


@pytest.mark.parametrize("variance", ["global", "per_example"])
def test_log_ratio_is_that_of_two_normal_densities(
    ensemble: tuple[torch.Tensor, torch.Tensor, torch.Tensor], variance: str
) -> None:
    seen, values, member = ensemble
    found = log_ratio(seen, values, member, variance)
    sides = []
    for chosen in (member, ~member):
        groups = [values[chosen[:, i], i] for i in range(30)]
        free = torch.tensor([len(group) - 1.0 for group in groups], dtype=torch.float64)
        each = torch.stack([group.var() for group in groups])
        pooled = (each * free).sum() / free.sum()
        spread = each if variance == "per_example" else pooled.expand(30)
        means = torch.stack([group.mean() for group in groups])
        sides.append(torch.tensor(norm.logpdf(seen, means, spread.sqrt())))
    torch.testing.assert_close(found, sides[0] - sides[1])


def test_deviations_order_records_as_the_offline_probability_does() -> None:
    rng = torch.Generator().manual_seed(2)
    seen, values = torch.randn(40, generator=rng), torch.randn(6, 40, generator=rng)
    found = deviations(seen, values, "per_example")
    tail = torch.tensor(norm.cdf(seen, values.mean(0), values.std(0)))
    assert torch.equal(found.argsort(), tail.argsort())


def test_refusals(ensemble: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    seen, values, member = ensemble
    with pytest.raises(UsageError, match="per_example"):
        log_ratio(seen, values, member, "none")
    with pytest.raises(UsageError, match="shadow_models"):
        log_ratio(seen, values[:2], member[:2])
    with pytest.raises(UsageError, match="shadow_models"):
        deviations(seen, values[:1])
