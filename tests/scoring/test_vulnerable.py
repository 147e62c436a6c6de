from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from privbench.contract import MembershipGuess, Samples
from privbench.errors import PluginError
from privbench.scoring.membership import score_membership
from privbench.scoring.scorer import Scorer
from privbench.scoring.vulnerable import NEAREST, People, strangeness

NOBODY = torch.zeros(400, dtype=torch.bool)
UNKNOWN = np.full(400, np.nan)


def people(classes=5, n=400):
    return People(np.arange(n) % classes, np.arange(n)[::-1].astype(float), np.arange(n) + 1000)


def scored(scores, bits, about, exposure=None, seed=0):
    rng = torch.Generator().manual_seed(seed)
    guess = MembershipGuess(scores, exposure=exposure)
    own, blind = NOBODY[: len(bits)], UNKNOWN[: len(bits)]
    result = score_membership(guess, "world", bits, own, blind, rng, about)
    return {score.metric: score for score in result.scores}


def halves_of(seed, n=400):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)) < n // 2


@pytest.mark.slow
def test_permuted_bits_hold_chance_in_every_group():
    """Null, and the raw maximum over classes is not it."""
    draws = torch.Generator().manual_seed(9)
    scores, exposure = torch.rand(2, 400, generator=draws)
    about, held, worst, raw = people(), {}, [], []
    for seed in range(200):
        bits = halves_of(seed)
        found = scored(scores, bits, about, exposure, seed)
        for metric, score in found.items():
            held[metric] = held.get(metric, 0) + (score.low <= score.blind <= score.high)
        worst.append(found["auc_worst_class"].value)
        by_class = [scored(scores, bits, replace(about, labels=None), None, seed)["auc"]]
        raw.append(max(_area(scores, bits, about.labels == k) for k in range(5)))
        assert "auc_worst_class" not in by_class[0].metric
    assert len(held) == 9
    assert min(held.values()) >= 171
    assert np.mean(worst) == pytest.approx(0.5, abs=0.02)
    assert np.mean(raw) > 0.56


@pytest.mark.slow
def test_groups_that_leak_hold_their_truth():
    """The tenth that leaks most, and the class that was selected, of classes that leak unlike."""
    about, n = people(10, 1200), 1200
    signal = np.linspace(0, 2, 10)[about.labels]
    tail = about.strangeness >= n - n // 10
    held = dict.fromkeys(("auc_outliers", "tpr_at_1pct_fpr_outliers", "auc_worst_class"), 0)
    for seed in range(200):
        bits, draws = halves_of(seed, n), np.random.default_rng(seed)
        own, blind = torch.zeros(n, dtype=torch.bool), np.full(n, np.nan)
        for named, gap in (("outliers", np.where(tail, 2.0, 0.0)), ("worst_class", signal)):
            guess = MembershipGuess(torch.tensor(draws.normal(gap * bits.numpy(), 1.0)))
            rng = torch.Generator().manual_seed(seed)
            result = score_membership(guess, "world", bits, own, blind, rng, about)
            for score in result.scores:
                if score.metric in held and score.metric.endswith(named):
                    held[score.metric] += score.low <= _truth(score, signal) <= score.high
    assert min(held.values()) >= 179, held


def _truth(score, signal):
    if score.metric.startswith("tpr"):
        return stats.norm.sf(stats.norm.isf(0.01) - 2.0)
    named = [int(word) for word in score.note.split(":")[0].split() if word.isdigit()]
    gaps = [2.0] if score.metric == "auc_outliers" else [signal[label] for label in named]
    return np.mean(stats.norm.cdf(np.array(gaps) / 2**0.5))


def _area(scores, bits, where):
    inside, outside = scores[bits & torch.tensor(where)], scores[~bits & torch.tensor(where)]
    return float((inside[:, None] > outside[None]).double().mean())


def test_a_class_that_leaks_alone_is_found_and_the_mean_hides_it():
    bits, about = halves_of(1), people()
    noise = torch.randn(400, generator=torch.Generator().manual_seed(2))
    leaky = torch.tensor(about.labels == 3)
    found = scored(noise + 3.0 * (bits & leaky) - 1.5 * leaky, bits, about)
    worst = found["auc_worst_class"]
    assert worst.value > 0.9 and worst.verdict() == "leaks" and "class 3:" in worst.note
    assert found["auc"].value < 0.7
    assert worst.n + worst.n_negative == 80


def test_tails_are_those_that_the_rankings_say():
    bits, about = halves_of(3), people()
    noise = torch.randn(400, generator=torch.Generator().manual_seed(4))
    last = torch.arange(400) >= 360  # least strange, most exposed
    found = scored(noise + 4.0 * (bits & last), bits, about, torch.arange(400.0))
    assert found["auc_exposed"].value > 0.95 and found["auc_exposed"].verdict() == "leaks"
    assert found["auc_outliers"].verdict() == "not shown to leak"
    exposed, outliers = found["auc_exposed"], found["tpr_at_1pct_fpr_outliers"]
    assert exposed.n + exposed.n_negative == 40
    assert "numbers 1399, 1398, " in exposed.note and "numbers 1000, 1001, " in outliers.note
    assert outliers.verdict() == "too few"


def test_blind_is_not_raised_by_the_noise_of_a_few() -> None:
    bits, about = halves_of(8), people()
    rng, guess = torch.Generator().manual_seed(0), MembershipGuess(torch.rand(400))
    noise = np.random.default_rng(0).normal(size=400)
    helped = noise + 6.0 * bits.numpy() * (np.arange(400) < 40)  # inputs tell in the outliers alone
    for blind, low, high in ((noise, 0.5, 0.56), (helped, 0.95, 1.0)):
        result = score_membership(guess, "world", bits, NOBODY, blind, rng, about)
        outliers = next(score for score in result.scores if score.metric == "auc_outliers")
        assert low <= outliers.blind <= high


def test_own_records_are_in_no_group():
    bits, about = halves_of(5), people()
    own = bits & (torch.arange(400) < 100)
    rng = torch.Generator().manual_seed(0)
    guess = MembershipGuess(torch.rand(400))
    result = score_membership(guess, "device", bits, own, UNKNOWN, rng, about)
    found = {score.metric: score for score in result.scores}
    left = 400 - int(own.sum())
    group = found["auc_outliers"]
    assert group.n + group.n_negative == round(left / 10)
    first = [
        int(word) - 1000 for word in group.note.split("numbers ")[1].split(", …")[0].split(", ")
    ]
    assert not own[first].any() and first == sorted(first)


def test_small_classes_are_marked():
    bits, about = halves_of(6), people(classes=40)  # ten records of each
    found = scored(torch.rand(400), bits, about)
    assert found["auc_worst_class"].verdict() == "too few"
    assert "auc_worst_class" not in scored(torch.rand(400), bits, replace(about, labels=None))
    assert "auc_worst_class" not in scored(torch.rand(400), bits, people(classes=1))


def test_strangeness_agrees_with_its_slow_twin_and_finds_wrong_labels(rng):
    draws = np.random.default_rng(0)
    y = torch.arange(120) % 3
    x = torch.tensor(draws.random((120, 4)) * 0.3 + y.numpy()[:, None] * 0.3, dtype=torch.float32)
    public, mine = Samples(x[:60], y[:60]), Samples(x[60:], y[60:].clone())
    mine.y[:4] = (mine.y[:4] + 1) % 3
    found = strangeness(mine, public, rng)
    assert set(np.argsort(-found)[:4]) == {0, 1, 2, 3}
    for record in range(60):
        apart = (public.x - mine.x[record]).norm(dim=1)
        same = public.y == mine.y[record]
        near, far = (apart[w].sort().values[:NEAREST].mean() for w in (same, ~same))
        assert found[record] == pytest.approx(float(near / (near + far)), rel=1e-4)


def test_strangeness_without_public_records_or_labels(rng):
    x = torch.rand(1200, 300, generator=rng)
    x[7] += 3.0
    assert strangeness(Samples(x), None, rng).argmax() == 7
    assert strangeness(Samples(x), Samples(torch.rand(50, 300, generator=rng)), rng).argmax() == 7
    alone = Samples(x[:4], torch.tensor([0, 0, 1, 2]))  # no other of classes 1 and 2
    assert np.isfinite(strangeness(alone, None, rng)).all()


def test_record_numbers_are_those_of_the_data(opened):
    scorer = Scorer(opened, 0)
    assert len(opened.numbers.unique()) == len(opened.candidates)
    result = scorer.score("membership", "world", MembershipGuess(torch.rand(360)))
    note = next(score.note for score in result.scores if score.metric == "auc_outliers")
    number = int(note.split("numbers ")[1].split(",")[0])
    assert number in opened.numbers.tolist()


def test_an_exposure_that_ranks_others():
    with pytest.raises(PluginError, match=r"shape \(3,\), got \(2,\)"):
        MembershipGuess(torch.zeros(3), exposure=torch.zeros(2))
    with pytest.raises(PluginError, match="NaN"):
        MembershipGuess(torch.zeros(2), exposure=torch.tensor([0.0, torch.nan]))
