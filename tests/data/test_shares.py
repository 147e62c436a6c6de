"""Who owns which records: equal and uneven shares."""

import numpy as np
import pytest
import torch

from privbench.contract import Samples, child_rng
from privbench.data.population import Population
from privbench.data.shares import dirichlet_shares
from privbench.data.truth import Truth
from privbench.errors import DataError, PluginError, UsageError


def people(count=300, classes=5, labels=True):
    rng = torch.Generator().manual_seed(0)
    y = torch.randint(0, classes, (count,), generator=rng) if labels else None
    train = Samples(torch.rand(count, 2, generator=rng), y)
    return Population(train, train, None, classes, Truth(train))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_dirichlet(labels, owners, alpha, rng):
    """Record by record: what ``dirichlet_shares`` deals in whole runs."""
    order = torch.randperm(len(labels), generator=rng).tolist()
    draws = np.random.default_rng(child_rng(rng, "dirichlet").initial_seed())
    shares = [[] for _ in range(owners)]
    for label in sorted(set(labels.tolist())):
        mine = [record for record in order if labels[record] == label]
        parts, reached, border = draws.dirichlet([alpha] * owners), 0.0, []
        for part in parts:
            reached += part
            border.append(round(reached * len(mine)))
        border[-1] = len(mine)
        for place, record in enumerate(mine):
            shares[next(k for k in range(owners) if place < border[k])].append(record)
    return [sorted(share) for share in shares]


@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.5, 100.0])
@pytest.mark.parametrize("owners", [1, 3, 40])
def test_uneven_shares_are_those_dealt_record_by_record(owners, alpha):
    labels = people().train.y
    found = dirichlet_shares(labels, owners, alpha, rng(4))
    assert [share.tolist() for share in found] == slow_dirichlet(labels, owners, alpha, rng(4))
    assert all(share.dtype == torch.int64 for share in found)


@pytest.mark.parametrize("alpha", [None, 0.1])
@pytest.mark.parametrize("holds", [None, [True, False, True, True], [False] * 3 + [True]])
def test_every_record_has_one_owner_and_the_truth_knows_him(alpha, holds):
    population = people()
    shares = population.share(4, rng(), holds, alpha)
    assert sorted(torch.cat(shares).tolist()) == list(range(300))
    for held, share in zip(holds or [True] * 4, shares, strict=True):
        assert held or len(share) == 0
    for number, share in enumerate(share for share in shares if len(share)):
        assert bool((population.truth.owners[share] == number).all())


def test_equal_shares_are_what_they_were_before_there_were_others():
    shares = people().share(7, rng(3))
    before = torch.randperm(300, generator=rng(3)).tensor_split(7)
    assert all(torch.equal(one, other) for one, other in zip(shares, before, strict=True))


def test_alpha_says_how_uneven():
    """Mean of the largest part of a label that one of ten owners holds."""
    labels = people(5000).train.y

    def largest(alpha):
        shares = dirichlet_shares(labels, 10, alpha, rng(1))
        counts = torch.stack([torch.bincount(labels[share], minlength=5) for share in shares])
        return float((counts.max(0).values / counts.sum(0)).mean())

    assert largest(0.01) > 0.85 > largest(0.5) > 0.25 > largest(1000.0) > 0.1


def test_the_generator_alone_decides():
    one, same, other = (people().share(6, rng(s), None, 0.3) for s in (2, 2, 3))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert [len(share) for share in one] != [len(share) for share in other]


@pytest.mark.slow
def test_ten_thousand_owners_of_few_records():
    shares = people().share(10_000, rng(), None, 0.5)
    assert len(shares) == 10_000 and sum(map(len, shares)) == 300
    assert sum(len(share) == 0 for share in shares) >= 9700


def test_shares_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="owns=true"):
        people().share(3, rng(), [False] * 3)
    with pytest.raises(PluginError, match="3 owners"):
        people().share(3, rng(), [True] * 2)
    with pytest.raises(DataError, match="needs labels"):
        people(labels=False).share(3, rng(), None, 0.5)
    with pytest.raises(UsageError, match=r"crowd\.alpha=0"):
        people().share(3, rng(), None, 0.0)
