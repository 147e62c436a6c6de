"""Slopes of distances between gradients: by layers as by differentiating twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from privbench.models.lenet_zhu import LeNetZhu
from privbench.toolkit.layerwise import layers_behind
from privbench.toolkit.matching import Distance, Matcher, Problem, cosine, relative, squared
from privbench.toolkit.secants import Valued, lowest

SHAPE = (1, 8, 8)


def _net() -> LeNetZhu:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return LeNetZhu(channels=1, size=8, classes=4, mean=[0.4], spread=[0.3])


def _problems(net: nn.Module, jobs: int, n: int, stem: bool = False) -> list[Problem]:
    rng = torch.Generator().manual_seed(5)
    names = [name for name, _ in net.named_parameters()]
    found = []
    for _ in range(jobs):
        x, y = torch.rand(n, *SHAPE, generator=rng), torch.randint(4, (n,), generator=rng)
        slopes = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
        gradient = dict(zip(names, slopes, strict=True))
        kept = {k: t for k, t in gradient.items() if not stem or k.startswith("conv0")}
        found.append(Problem(kept, net.state_dict(), torch.full((n,), 1 / n)))
    return found


def _twice(
    net: nn.Module, problem: Problem, distance: Distance, x: Tensor, logits: Tensor
) -> tuple[Tensor, ...]:
    """Value and slopes of one problem, as anyone would write them."""
    x, logits = x.clone().requires_grad_(), logits.clone().requires_grad_()
    at = [net.get_parameter(name) for name in problem.gradient]
    loss = F.cross_entropy(net(x), logits.softmax(dim=-1))
    found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, at, create_graph=True)])
    goal = torch.cat([g.flatten() for g in problem.gradient.values()])
    if distance is cosine:
        value = 1 - F.cosine_similarity(found, goal, dim=0)
    else:
        value = (found - goal).square().sum()
        value = value / goal.square().sum() if distance is relative else value
    return value, *torch.autograd.grad(value, (x, logits))


@pytest.mark.parametrize("distance", [cosine, squared, relative])
@pytest.mark.parametrize("jobs, n, mixed, stem", [(3, 1, False, False), (2, 4, False, False),
                                                  (2, 2, True, False), (1, 3, False, True)])  # fmt: skip
def test_every_way_gives_the_slopes_of_differentiating_twice(
    distance: Distance, jobs: int, n: int, mixed: bool, stem: bool
) -> None:
    net = _net()
    problems = _problems(net, jobs, n, stem)
    rng = torch.Generator().manual_seed(7)
    x, logits = torch.rand(jobs, n, *SHAPE, generator=rng), torch.randn(jobs, n, 4, generator=rng)
    pull = Matcher(_net(), problems, SHAPE, distance, mixed=mixed).pull(x, logits, soft=True)
    assert pull.logits is not None
    for job in range(jobs):
        value, at_x, at_logits = _twice(net, problems[job], distance, x[job], logits[job])
        torch.testing.assert_close(pull.value[job], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pull.x[job], at_x, rtol=1e-3, atol=2e-5)
        torch.testing.assert_close(pull.logits[job], at_logits, rtol=1e-3, atol=2e-5)


def test_a_job_gets_the_same_bits_alone_and_in_company() -> None:
    rng = torch.Generator().manual_seed(7)
    net = LeNetZhu()
    gradient = {n: torch.randn(p.shape, generator=rng) for n, p in net.named_parameters()}
    problems = [Problem(gradient, net.state_dict(), torch.ones(1))] * 3
    x = torch.rand(3, 1, 3, 32, 32, generator=rng)
    labels = torch.eye(10)[:1].expand(3, 1, 10)
    together = Matcher(LeNetZhu(), problems, x.shape[2:], cosine).pull(x, labels).x
    for job in range(3):
        alone = Matcher(LeNetZhu(), problems[:1], x.shape[2:], cosine)
        assert torch.equal(together[job : job + 1], alone.pull(x[job : job + 1], labels[:1]).x)


def test_strides_dilations_and_oblong_kernels_are_unfolded_rightly() -> None:
    rng = torch.Generator().manual_seed(9)
    net = nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(84, 4),
    )
    x, logits = torch.rand(2, 1, 2, 7, 5, generator=rng), torch.randn(2, 1, 4, generator=rng)
    gradient = {n: torch.randn(p.shape, generator=rng) for n, p in net.named_parameters()}
    problems = [Problem(gradient, net.state_dict(), torch.ones(1))] * 2
    wanted = [_twice(net, problems[0], squared, x[job], logits[job])[1] for job in range(2)]
    matcher = Matcher(net, problems, x.shape[2:], squared)
    torch.testing.assert_close(
        matcher.pull(x, logits, soft=True).x, torch.stack(wanted), rtol=1e-3, atol=2e-5
    )


def _tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    net[2] = net[0]
    return net


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)),
        _tied(),
    ],
)
def test_what_cannot_be_done_by_layers_is_not(net: nn.Module) -> None:
    assert (
        layers_behind(net, [name for name, _ in net.named_parameters()], torch.rand(1, 8)) is None
    )


def test_the_second_order_method_finds_each_lowest_place_alone() -> None:
    """Rosenbrock's valley from three places; one row has nothing to do."""

    def valley(x: Tensor) -> Valued:
        a, b = x[:, 0], x[:, 1]
        value = (1 - a).square() + 100 * (b - a * a).square()
        slope = torch.stack([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)], dim=1)
        return Valued(value, slope)

    start = torch.tensor([[-1.2, 1.0], [1.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    found = lowest(valley, start, 80)
    assert float((found - 1).abs().max()) < 1e-4
    assert torch.equal(lowest(valley, start[:1], 80), found[:1])
