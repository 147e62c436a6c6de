"""Three accountants of the same mechanism: ours, Rényi moments, and Google's."""

from __future__ import annotations

import pytest

from defenses.dpsgd import DpSgd, _moments

pytestmark = pytest.mark.slow


def theirs(noise: float, rate: float, steps: int) -> float:
    """Privacy loss distributions (Koskela et al. 2020, https://arxiv.org/abs/1906.03049)."""
    dp_accounting = pytest.importorskip("dp_accounting", reason="pip install privbench[test]")
    accountant = pytest.importorskip("dp_accounting.pld").PLDAccountant()
    step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    accountant.compose(step, steps)
    return float(accountant.get_epsilon(1e-5))


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.25, 120), (5.0, 0.25, 200)])
def test_our_bound_is_that_of_another_accountant(noise: float, rate: float, steps: int) -> None:
    found, other = DpSgd().bill(noise, rate, steps), theirs(noise, rate, steps)
    assert 0.995 * other <= found <= 1.02 * other
    assert found <= 1.001 * _moments(noise, rate, steps, 1e-5)  # looser, always above
