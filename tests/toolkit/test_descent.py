"""The search for inputs against the optimisers of torch, one image at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from privbench.contract import Public, Samples
from privbench.errors import UsageError
from privbench.toolkit.descent import Descent, apart, started


def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())


def _images(n: int) -> Tensor:
    return torch.rand(n, 2, 6, 5, generator=torch.Generator().manual_seed(2))


def _published(net: nn.Module, target: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """He, Zhang, Lee's loop for one image, as their code has it: in normalised inputs."""
    z = torch.zeros(1, 2, 6, 5, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.01, eps=1e-3, amsgrad=True)
    for _ in range(25):
        optimizer.zero_grad()
        down, across = z[:, :, 1:] - z[:, :, :-1], z[..., 1:] - z[..., :-1]
        variation = down.square().sum() / (2 * 5 * 5) + across.square().sum() / (2 * 6 * 4)
        (((net(z) - target) ** 2).mean() + 0.7 * variation).backward()
        optimizer.step()
    return (mean + deviation * z.detach()).clamp(0, 1)


def test_the_published_recipe_is_that_of_its_authors() -> None:
    mean, deviation = torch.full((2, 1, 1), 0.5), torch.tensor([0.5, 0.25]).view(2, 1, 1)
    net, x = _net(), _images(3)
    whole = nn.Sequential(_Normal(mean, deviation), net)
    target = whole(x).detach()
    wanted = torch.cat([_published(net, each[None], mean, deviation) for each in target])
    descent = Descent(
        steps=25, rate=0.01, smooth=0.7, power=2, schedule="constant", amsgrad=True, eps=1e-3,
        spread=(0.5, 0.25), boxed=False,
    )  # fmt: skip
    far = apart(target, torch.ones_like(target), relative=False, many=1)
    found = descent.run(lambda z: far(whole(z)), torch.full_like(x, 0.5), 3)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


class _Normal(nn.Module):
    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


def test_what_was_not_seen_counts_for_nothing_and_relative_errors_have_no_unit() -> None:
    target = _images(4)
    weight = torch.ones_like(target)
    weight[:, 1] = 0
    found = target + 0.1
    plain = apart(target, weight, False, many=1)(found)
    torch.testing.assert_close(plain, torch.full((4,), 0.01))
    wrong = torch.where(weight > 0, found, torch.full_like(found, 9.0))
    torch.testing.assert_close(apart(target, weight, False, many=1)(wrong), plain)
    relative = apart(target, weight, True, many=1)(found)
    torch.testing.assert_close(apart(9 * target, weight, True, many=1)(9 * found), relative)
    dead = torch.zeros_like(target)  # nothing varies: the plain error
    torch.testing.assert_close(apart(dead, weight, True, many=1)(dead + 0.1), plain)


def test_starts() -> None:
    public = Public(auxiliary=Samples(torch.tensor([[0.0], [0.0], [0.9]])))
    assert started("typical", public, (1,)).item() == 0.0
    assert started("mean", public, (1,)).item() == pytest.approx(0.3)
    assert started("grey", public, (1,)).item() == 0.5
    assert started("typical", Public(), (1,)).item() == 0.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "linear"}, "attack.schedule=linear; expected one of cosine, constant"),
        ({"power": 3}, "attack.power=3"),
        ({"steps": 0}, "attack.steps=0"),
    ],
)
def test_refuses_settings_out_of_range(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Descent(**{"steps": 3, "rate": 0.1, "smooth": 0.0, **settings})  # type: ignore[arg-type]


def test_refuses_a_spread_for_other_channels_and_another_start() -> None:
    descent = Descent(steps=1, rate=0.1, smooth=0.0, spread=(1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match=r"attack\.spread holds 3 numbers; .* channels, 2"):
        descent.run(lambda z: z.flatten(1).sum(1), _images(1), 3)
    with pytest.raises(UsageError, match=r"attack\.start=noise"):
        started("noise", Public(), (1,))
