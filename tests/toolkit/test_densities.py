"""Densities against the normal distribution of scipy and against plain formulas."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import norm

from privbench.errors import UsageError
from privbench.scoring.statistics import auc
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


@pytest.mark.parametrize("variance", ["global", "per_example"])
def test_many_records_are_taken_in_parts_with_the_result_of_the_whole(variance: str) -> None:
    rng = torch.Generator().manual_seed(4)
    values = torch.randn(10, 700, generator=rng, dtype=torch.float64)
    member = (torch.rand(10, 700, generator=rng).argsort(0) < 4) & (values > -9)
    seen = torch.randn(700, generator=rng, dtype=torch.float64)
    sides = []
    for chosen in (member, ~member):
        mean = (values * chosen).sum(0) / chosen.sum(0)
        square = ((values - mean).square() * chosen).sum(0)
        free = chosen.sum(0) - 1
        spread = square / free if variance == "per_example" else square.sum() / free.sum()
        sides.append((mean, spread))
    (mean_in, in_), (mean_out, out) = sides
    wanted = norm.logpdf(seen, mean_in, in_.sqrt()) - norm.logpdf(seen, mean_out, out.sqrt())
    torch.testing.assert_close(log_ratio(seen, values, member, variance), torch.tensor(wanted))
    offline = deviations(seen, values, variance, member=member)
    torch.testing.assert_close(offline, (seen - mean_out) / out.sqrt())


@pytest.mark.parametrize(("mu", "area"), [(1, 0.7602), (2, 0.9214), (3, 0.9831)])
def test_the_ratio_of_gaussian_logits_reaches_what_an_oracle_does(mu: float, area: float) -> None:
    rng = torch.Generator().manual_seed(5)
    member = torch.rand(257, 4000, generator=rng) < 0.5
    said = torch.randn(4000, generator=rng) + mu * member + torch.randn(257, 4000, generator=rng)
    phi = confidence(torch.stack([said, torch.zeros_like(said)], -1), torch.zeros(4000).long())
    scores = log_ratio(phi[0], phi[1:], member[1:])
    assert auc(scores.numpy(), member[0].numpy()) == pytest.approx(area, abs=0.02)


def test_refusals(ensemble: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    seen, values, member = ensemble
    with pytest.raises(UsageError, match="per_example"):
        log_ratio(seen, values, member, "none")
    with pytest.raises(UsageError, match="shadow_models"):
        log_ratio(seen, values[:2], member[:2])
    with pytest.raises(UsageError, match="shadow_models"):
        deviations(seen, values[:1])
