from dataclasses import replace

import numpy as np
import pytest
import torch

from privbench.contract import MembershipGuess
from privbench.data.arrays import arrays, members
from privbench.data.splits import open_population
from privbench.errors import NotApplicable, PluginError
from privbench.scoring.membership import score_membership, score_recurrence
from privbench.scoring.scorer import Scorer


def headline(scorer, scores, **kwargs):
    return scorer.score("membership", "released", MembershipGuess(scores), **kwargs).scores[0]


def test_the_oracle_is_perfect_and_its_mirror_is_zero(scorer, opened):
    member = opened.truth.member
    perfect = scorer.score("membership", "world", MembershipGuess(member.float(), 0.5))
    values = {score.metric: score.value for score in perfect.scores}
    rates = {"auc", "tpr_at_1pct_fpr"}
    groups = {f"{rate}_{group}" for rate in rates for group in ("outliers", "worst_class")}
    others = {"tpr_at_0.1pct_fpr", "balanced_accuracy", "auc_devices"}
    assert values == dict.fromkeys(rates | groups | others, 1.0)
    assert perfect.scores[0].verdict() == "leaks"
    assert perfect.scores[1].verdict() == "too few"
    assert headline(scorer, -member.float()).value == 0.0


def test_a_coin_does_not_leak(scorer):
    scores = [
        headline(scorer, torch.rand(360, generator=torch.Generator().manual_seed(seed)))
        for seed in range(40)
    ]
    assert sum(score.verdict() == "leaks" for score in scores) <= 5  # P(more) < 0.001 at 2.5 %
    assert np.mean([score.value for score in scores]) == pytest.approx(0.5, abs=0.02)


def test_permuted_bits_hold_chance():
    """Null: 200 truths drawn anew for one guess; the interval holds the blind value."""
    guess = MembershipGuess(torch.rand(200, generator=torch.Generator().manual_seed(9)), 0.5)
    nobody, unknown = torch.zeros(200, dtype=torch.bool), np.full(200, np.nan)
    held = np.zeros(4, dtype=int)
    for seed in range(200):
        rng = torch.Generator().manual_seed(seed)
        bits = torch.randperm(200, generator=rng) < 100
        result = score_membership(guess, "world", bits, nobody, unknown, rng)
        held += [score.low <= score.blind <= score.high for score in result.scores]
    assert (held >= [171, 179, 179, 179]).all()


def test_blind_is_half_on_a_random_split_and_more_where_sources_differ():
    rng = np.random.default_rng(0)
    x, y = rng.random((400, 6)) * 0.5, np.arange(400) % 2
    coin = torch.rand(400, generator=torch.Generator().manual_seed(0))
    same = Scorer(open_population(members((x[:200], y[:200]), (x[200:], y[200:])), 0), 0)
    assert headline(same, coin).blind < 0.6
    shifted = members((x[:200], y[:200]), (x[200:] + 0.2, y[200:]))
    opened = open_population(shifted, 0)
    scorer = Scorer(opened, 0)
    found = headline(scorer, coin)
    assert found.blind > 0.9 and found.blind_name == "inputs alone"
    by_input = headline(scorer, -opened.candidates.x.mean(dim=1))
    assert by_input.value > 0.8, "such an attack looks strong,"
    assert by_input.verdict() == "not shown to leak", "but needs no model at all"


def test_own_records_do_not_count(scorer, opened):
    member, places = opened.truth.member, opened.truth.places
    own = member & (opened.truth.owners[places.clamp(min=0)] == 2)
    found = headline(scorer, own.float(), owned=frozenset({2}))
    assert found.n == 180 - int(own.sum()) and found.n_negative == 180
    assert found.value == 0.5


def test_capture_is_the_share_of_members_seen(scorer, opened, rows):
    coin = torch.rand(360)
    found = headline(scorer, coin, seen=rows[:45], by_construction=True)
    assert found.capture == pytest.approx(45 / 180)
    assert found.verdict() == "by construction"
    everything = headline(scorer, coin, seen=rows, owned=frozenset({1}))
    assert everything.capture == 1.0
    own = opened.truth.owners_of(rows) == 1
    assert headline(scorer, coin, seen=rows[own], owned=frozenset({1})).capture == 0.0
    assert headline(scorer, coin).capture is None


def test_scores_of_the_wrong_length(scorer):
    with pytest.raises(PluginError, match="360 candidates, got 7"):
        headline(scorer, torch.zeros(7))
    with pytest.raises(PluginError, match="MembershipGuess"):
        scorer.score("inversion", "world", MembershipGuess(torch.zeros(360)))


def test_official_split_has_no_membership():
    rng = np.random.default_rng(0)
    data = arrays(rng.random((40, 3)), np.arange(40) % 2, np.arange(40) // 30)
    opened = open_population(replace(data, split="official"), 0)
    with pytest.raises(NotApplicable, match="thirds"):
        headline(Scorer(opened, 0), torch.zeros(40))


def test_same_seed_same_score(opened):
    coin = torch.rand(360, generator=torch.Generator().manual_seed(1))
    guess = MembershipGuess(coin, 0.5)
    one, two = (Scorer(opened, 4).score("membership", "a", guess).scores for _ in range(2))
    assert one == two


def test_pairs_are_scored_by_whether_they_are_one_sample():
    first = torch.arange(40)
    second = torch.where(first % 2 == 0, first, first.roll(1))
    rng = torch.Generator().manual_seed(0)
    found = score_recurrence(MembershipGuess((first == second).float()), "host", first, second, rng)
    auc = found.scores[0]
    assert (auc.goal, auc.value, auc.n, auc.n_negative, auc.blind) == (
        "recurrence",
        1.0,
        20,
        20,
        0.5,
    )
    assert auc.verdict() == "leaks"
    with pytest.raises(PluginError, match="40 pairs"):
        score_recurrence(MembershipGuess(torch.zeros(80)), "host", first, second, rng)
