"""Moments tell activations apart that a task does not, and agree with a loop over classes."""

from __future__ import annotations

import pytest
import torch

from privbench.toolkit.moments import Moments


def _of(flat: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    kept = flat[rows]
    centred = kept - kept.mean(dim=0)
    return kept.mean(dim=0), centred.T @ centred / len(kept)


def test_distance_is_that_of_a_loop_over_classes() -> None:
    rng = torch.Generator().manual_seed(0)
    seen, made = torch.randn(60, 3, 2, generator=rng), 2 * torch.randn(40, 3, 2, generator=rng)
    labels, others = torch.arange(60) % 3, torch.arange(40) % 2  # nothing is made of class 2
    labels[:5] = -1
    found = Moments(seen, labels, rng).distance(made, others)
    flat, flat_made = seen.flatten(1), made.flatten(1)
    size = _of(flat, labels >= -1)[1].diagonal().mean()
    parts = []
    for mine, theirs in [
        (labels == 0, others == 0), (labels == 1, others == 1), (labels >= -1, others >= 0),
    ]:  # fmt: skip
        (mean, spread), (other_mean, other_spread) = _of(flat, mine), _of(flat_made, theirs)
        apart = (mean - other_mean).square().mean() / size
        parts.append(apart + (spread - other_spread).square().sum() / spread.square().sum())
    torch.testing.assert_close(found, torch.stack(parts).mean())


@pytest.mark.parametrize("features", [6, 400])
def test_the_same_records_are_at_no_distance_and_swapped_units_are(features) -> None:
    rng = torch.Generator().manual_seed(0)
    seen = torch.randn(50, features, generator=rng) * torch.linspace(0.5, 2, features)
    labels, known = torch.full((50,), -1), torch.zeros(50, dtype=torch.int64)
    moments = Moments(seen, labels, rng)
    assert float(moments.distance(seen, known)) < 1e-8
    assert float(moments.distance(seen.flip(1), known)) > 0.5


def test_one_record_and_constant_activations_give_finite_slopes() -> None:
    rng = torch.Generator().manual_seed(0)
    for seen in (torch.ones(1, 4), torch.zeros(30, 4)):
        made = torch.randn(20, 4, generator=rng, requires_grad=True)
        moments = Moments(seen, torch.zeros(len(seen), dtype=torch.int64), rng)
        moments.distance(made, torch.zeros(20, dtype=torch.int64)).backward()
        assert bool(made.grad.isfinite().all())
