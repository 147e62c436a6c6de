"""Devices of a crowd: told from such that were not in it, by the mean score of their records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from privbench.contract import MembershipGuess
from privbench.scoring import statistics
from privbench.scoring.compared import Compared
from privbench.scoring.devices import Devices
from privbench.scoring.membership import score_membership
from privbench.scoring.power import least_area
from privbench.scoring.seats import summarise

MEMBERS, EACH = 120, 10


def _places() -> torch.Tensor:
    """Candidates: members and as many others, shuffled."""
    rng = torch.Generator().manual_seed(1)
    places = torch.cat([torch.arange(MEMBERS), torch.full((MEMBERS,), -1)])
    return places[torch.randperm(len(places), generator=rng)]


PLACES = _places()
OWNERS = torch.arange(MEMBERS) // EACH
LABELS = torch.arange(2 * MEMBERS) % 4


def _compared(scores: np.ndarray, own: np.ndarray) -> Compared:
    asked = np.flatnonzero(~own)
    blind = np.full(len(asked), np.nan)
    bits = (PLACES >= 0).numpy()[asked]
    return Compared("host", asked, scores[asked], bits, blind, torch.Generator().manual_seed(0))


def _devices() -> Devices:
    found = Devices.of(PLACES, OWNERS, LABELS, torch.Generator().manual_seed(0))
    assert found is not None
    return found


def test_sets_are_those_of_owners_and_strangers_are_like_them() -> None:
    found = _devices()
    assert [len(held) for held in found.sets] == [EACH] * 12
    assert all(len(OWNERS[PLACES[held]].unique()) == 1 for held in found.sets)
    every = np.concatenate(found.strangers)
    assert len(np.unique(every)) == MEMBERS and bool((PLACES[every] < 0).all())
    first, other = LABELS[found.sets[0]], LABELS[found.strangers[0]]
    assert torch.equal(first.sort().values, other.sort().values)


def test_many_weak_scores_make_a_strong_one() -> None:
    rng = np.random.default_rng(0)
    bits = (PLACES >= 0).numpy()
    scores = rng.normal(size=len(bits)) + 0.7 * bits
    own = np.zeros(len(bits), dtype=bool)
    found = _devices().score(_compared(scores, own), own)
    assert found is not None and found.metric == "auc_devices"
    assert (found.n, found.n_negative, found.blind) == (12, 12, 0.5)
    assert found.value > statistics.auc(scores, bits) + 0.1
    assert found.verdict() == "leaks" and "12 devices against 12" in found.note


def test_null_scores_of_chance_do_not_leak() -> None:
    own = np.zeros(len(PLACES), dtype=bool)
    devices, rng = _devices(), np.random.default_rng(3)
    leaks = 0
    for _ in range(40):
        found = devices.score(_compared(rng.normal(size=len(own)), own), own)
        assert found is not None
        leaks += found.verdict() == "leaks"
    assert leaks <= 5  # P(more) < 0.001 at 2.5 %


@pytest.mark.slow
@pytest.mark.parametrize("signal", [0.0, 0.3, 0.8])
def test_the_interval_holds_the_area_of_devices(signal: float) -> None:
    own = np.zeros(len(PLACES), dtype=bool)
    devices, bits = _devices(), (PLACES >= 0).numpy()
    truth, held = ndtr(signal * np.sqrt(EACH / 2)), 0
    for seed in range(200):
        draws = np.random.default_rng(seed)
        compared = _compared(draws.normal(signal * bits, 1.0), own)
        found = devices.score(replace(compared, rng=torch.Generator().manual_seed(seed)), own)
        assert found is not None
        held += found.low <= truth <= found.high
    assert held >= 179  # one-sided exact binomial test at level 0.001 of a coverage of 0.95


def test_own_devices_are_left_out_and_one_owner_is_no_crowd() -> None:
    own = (OWNERS[PLACES.clamp(min=0)] == 3).numpy() & (PLACES >= 0).numpy()
    found = _devices().score(_compared(np.arange(len(own)).astype(float), own), own)
    assert found is not None and found.n == 11
    nobody = torch.zeros_like(OWNERS)
    assert Devices.of(PLACES, nobody, LABELS, torch.Generator()) is None
    alone = ~(OWNERS[PLACES.clamp(min=0)] == 3).numpy() & (PLACES >= 0).numpy()
    assert _devices().score(_compared(np.zeros(len(own)), alone), alone) is None


def test_devices_are_summed_up_over_seats() -> None:
    rng, bits = np.random.default_rng(0), PLACES >= 0
    about = _devices()
    results = []
    for seat, signal in enumerate((2.0, 0.0, 0.0)):
        own = (OWNERS[PLACES.clamp(min=0)] == seat) & bits
        scores = torch.tensor(rng.normal(size=len(bits))) + signal * bits
        blind = np.full(len(bits), np.nan)
        draws = torch.Generator().manual_seed(0)
        guess = MembershipGuess(scores)
        results.append(
            score_membership(guess, f"device-{seat}", bits, own, blind, draws, None, about)
        )
    found = {score.seat: score for score in summarise(results, 0) if score.metric == "auc_devices"}
    assert found["worst"].value == 1.0 and found["worst"].low < 0.9
    assert 0.0 < found["best"].value < 1.0 and "11 devices against 12" in found["median"].note


def test_uneven_shares_leave_whole_sets_alone() -> None:
    uneven = torch.where(OWNERS > 2, 2, OWNERS)
    few = PLACES.clone()
    few[(PLACES < 0).nonzero().flatten()[::2]] = -1
    found = Devices.of(few, uneven, None, torch.Generator().manual_seed(0))
    assert found is not None
    sizes = [len(held) for held in found.sets]
    assert sizes == [10, 10, 100] and {len(held) for held in found.strangers} <= set(sizes)


@pytest.mark.parametrize("n", [11, 40])
def test_the_least_area_is_found_as_often_as_promised(n: int) -> None:
    area = least_area(n, n)
    rng, found = np.random.default_rng(0), 0
    mu = np.sqrt(2) * ndtri(area)
    for trial in range(60):
        scores = np.concatenate([rng.normal(mu, 1, n), rng.normal(0, 1, n)])
        low = statistics.auc_interval(
            scores, np.arange(2 * n) < n, np.random.default_rng(trial)
        ).low
        found += low > 0.5
    assert 0.62 < found / 60 < 0.95
