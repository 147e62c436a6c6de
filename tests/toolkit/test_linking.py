"""Linking rows of two epochs: hard, set by set, and soft, pair by pair."""

from __future__ import annotations

import torch

from privbench.toolkit.linking import linked, odds


def _sets(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Which sample each row is, and what it gave: 16 in one epoch, ten of these and four more in the next."""
    rng = torch.Generator().manual_seed(3)
    sets = torch.cat([torch.arange(16), torch.arange(16).flip(0)[:10], torch.arange(16, 20)])
    given = torch.rand(20, 30, generator=rng)[sets]
    return sets, given + noise * torch.randn(given.shape, generator=rng)


def test_links_are_found_and_strangers_are_left_alone() -> None:
    sets, guesses = _sets(0.05)
    epochs = torch.tensor([0] * 16 + [1] * 14)
    blind = torch.full((30,), 0.5)
    found = linked(guesses, epochs, blind, 0.8)
    assert torch.equal(sets[found], sets)
    assert torch.equal(linked(guesses, epochs, blind, 0.0), torch.arange(30))


def test_odds_are_highest_for_the_row_that_is_meant() -> None:
    sets, given = _sets(0.1)
    found = odds(given[:16], given[16:26], 10.0, 30)
    assert torch.equal(sets[:16][found.argmax(dim=0)], sets[16:26])
    assert torch.allclose(found.exp().sum(dim=0), torch.ones(10).double())


def test_odds_of_square_matrices_sum_to_one_both_ways() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.rand(2, 12, 5, generator=rng)
    shares = odds(rows[0], rows[1], 4.0, 100).exp()
    for dim in (0, 1):
        assert torch.allclose(shares.sum(dim=dim), torch.ones(12).double(), atol=1e-3)


def test_equal_rows_and_a_single_one_give_finite_odds() -> None:
    same = torch.ones(3, 4)
    assert odds(same, same, 10.0, 5).isfinite().all()
    assert odds(same[:1].half(), same[:1], 10.0, 5).tolist() == [[0.0]]
