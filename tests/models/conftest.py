"""What every reference network must do, written once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from privbench.contract import Net, Spec
from privbench.models.described import as_net

Probe = Callable[[nn.Module, tuple[int, ...]], None]


@pytest.fixture
def keeps_the_rules() -> Probe:
    """Check a network on records of a shape."""
    return _keeps_the_rules


@pytest.fixture
def count() -> Callable[[nn.Module], int]:
    """Numbers that a network learns."""
    return lambda module: sum(each.numel() for each in module.parameters())


def _keeps_the_rules(module: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    module.eval()
    out = module(x)
    assert out.shape == (4, module.classes)
    for row in range(4):  # no record looks at another
        torch.testing.assert_close(module(x[row : row + 1])[0], out[row], rtol=1e-4, atol=1e-5)
    assert torch.equal(as_net(module).module()(x), out)
    assert torch.equal(fx.symbolic_trace(module)(x), out)
    _draws_from_the_seed(as_net(module).spec)
    _learns(module, x)


def _draws_from_the_seed(spec: Spec) -> None:
    """Equal seeds, equal weights."""
    first, second = (Net(spec).initialised(torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def _learns(module: nn.Module, x: Tensor) -> None:
    """Steps lower the loss, and every parameter takes part."""
    y = torch.arange(len(x)) % module.classes
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        assert all(bool(each.grad.abs().sum() > 0) for each in module.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
