"""The attack model against a library's, and where it must refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from privbench.errors import NotApplicable
from privbench.toolkit.logistic import fit_logistic


def test_it_is_the_librarys_solution() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=rng, dtype=torch.float64)
    x[:, 3] = 7.0  # says nothing
    odds = x[:, 0] - 0.5 * x[:, 1] + 0.2
    said = torch.rand(200, generator=rng, dtype=torch.float64) < torch.sigmoid(odds)
    z = (x[:, :3] - x[:, :3].mean(0)) / x[:, :3].std(0)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(z.numpy(), said.numpy())
    expected = theirs.decision_function(z.numpy())
    np.testing.assert_allclose(fit_logistic(x, said)(x).numpy(), expected, atol=1e-4)


def test_records_that_part_at_once_give_finite_odds() -> None:
    x = torch.arange(20.0)[:, None]
    odds = fit_logistic(x, x[:, 0] > 9)(x)
    assert bool(odds.isfinite().all())
    assert torch.equal(odds > 0, x[:, 0] > 9)


def test_one_kind_alone_teaches_nothing() -> None:
    with pytest.raises(NotApplicable, match="both kinds"):
        fit_logistic(torch.randn(5, 2), torch.ones(5, dtype=torch.bool))
