"""The closed form equals the slow obvious one, and its strength suits the noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from privbench.toolkit.ridge import STRENGTHS, fit_ridge


def _pairs(n: int, p: int, noise: float) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(n)
    x = 3 * torch.randn(n, p, generator=rng, dtype=torch.float64) + 1
    y = x @ torch.randn(p, 2, generator=rng, dtype=torch.float64)
    return x, y + noise * torch.randn(n, 2, generator=rng, dtype=torch.float64)


def _slow_error(z: Tensor, y: Tensor, strength: float) -> float:
    """Generalised cross-validation by the hat matrix itself."""
    n, p = z.shape
    hat = z @ torch.linalg.inv(z.T @ z + strength * torch.eye(p, dtype=z.dtype)) @ z.T + 1 / n
    return float((y - hat @ y).square().sum() / (n - hat.trace()) ** 2)


@pytest.mark.parametrize(("n", "p"), [(60, 8), (20, 35)])
def test_equals_the_obvious_solution_at_the_best_strength(n: int, p: int) -> None:
    x, y = _pairs(n, p, noise=2.0)
    ridge = fit_ridge(x, y)
    z, centred = (x - x.mean(0)) / x.std(0, unbiased=False), y - y.mean(0)
    errors = {s: _slow_error(z, centred, n * s) for s in STRENGTHS if s > 1e-6}
    assert ridge.strength == pytest.approx(n * min(errors, key=lambda s: errors[s]))
    penalty = ridge.strength * torch.eye(p, dtype=torch.float64)
    expected = z @ torch.linalg.inv(z.T @ z + penalty) @ z.T @ centred + y.mean(0)
    torch.testing.assert_close(ridge(x), expected)


def test_more_noise_asks_for_more_strength_and_none_for_next_to_none() -> None:
    strengths = [fit_ridge(*_pairs(60, 8, noise)).strength for noise in (0.0, 5.0, 100.0)]
    assert strengths == sorted(strengths) and strengths[0] < 1e-4 < 1 < strengths[2]


def test_features_that_never_change_are_left_out() -> None:
    x, y = _pairs(60, 8, noise=0.1)
    dead = torch.cat([x, torch.full((60, 3), 0.7, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(fit_ridge(dead, y)(dead), fit_ridge(x, y)(x))


def test_a_matrix_on_which_lapack_gives_up_is_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen with silent channels on CIFAR-10; the decoder is the same but for rounding."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(40, 12, generator=rng), torch.rand(40, 3, generator=rng)
    x[:, 5:] = 0.0  # silent
    plain, found = fit_ridge(x, y), torch.linalg.eigh
    calls: list[int] = []

    def gives_up_once(gram: torch.Tensor) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise torch.linalg.LinAlgError("failed to converge")
        return found(gram)

    monkeypatch.setattr(torch.linalg, "eigh", gives_up_once)
    lifted = fit_ridge(x, y)
    assert len(calls) == 2 and lifted.strength == plain.strength
    assert torch.allclose(lifted(x), plain(x), atol=1e-9)
