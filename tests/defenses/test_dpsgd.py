"""DP-SGD: Opacus against a slow twin, its noise against its definition, its epsilon against the bound."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from defenses.dpsgd import DpSgd
from privbench.contract import Net, Recipe, Samples, Spec, batches, child_rng, spec_of
from privbench.errors import TrainingError, UsageError
from privbench.regimes.centralized import Centralized
from privbench.regimes.fedavg import FedAvg
from privbench.regimes.training import Training, train

NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 24, 10]}))


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def records(n: int = 60) -> Samples:
    draw = rng(0)
    x = torch.rand(n, 1, 8, 8, generator=draw)
    return Samples(x, torch.randint(10, (n,), generator=draw))


def recipe_of(noise: float, clip: float = 0.5, lr: float = 0.2) -> Recipe:
    """Expected batches of 12, with fixed noise: nothing to account for."""
    defense = DpSgd(clip=clip, noise=noise, batch=12, spent=1.0)
    return Recipe(
        net=NET,
        optimizer=Spec("torch.optim.SGD", {"lr": lr}),
        epochs=2,
        batch=12,
        sampling="poisson",
        learning=spec_of(defense),
        mechanism=defense.mechanism(),
    )


def twin(recipe: Recipe, samples: Samples, seed: int) -> dict[str, torch.Tensor]:
    """One record at a time: clip, add up, add noise, divide by the *expected* batch."""
    module = NET.initialised(child_rng(rng(seed), "init")).module().to(samples.x)
    order = batches(recipe, len(samples), child_rng(rng(seed), "batches"))
    noise = child_rng(rng(seed), "noise")
    parameters = list(module.parameters())
    for _ in range(recipe.epochs * 5):  # 60 records in batches of 12
        total = [torch.zeros_like(p) for p in parameters]
        for i in next(order).tolist():
            loss = F.cross_entropy(module(samples.x[i : i + 1]), samples.y[i : i + 1])
            slopes = torch.autograd.grad(loss, parameters)
            norm = torch.sqrt(sum(s.square().sum() for s in slopes))
            factor = min(1.0, recipe.mechanism.clip / float(norm))
            total = [t + factor * s for t, s in zip(total, slopes, strict=True)]
        with torch.no_grad():
            for p, t in zip(parameters, total, strict=True):
                std = recipe.mechanism.noise * recipe.mechanism.clip
                draw = torch.normal(0.0, std, p.shape, generator=noise) if std else 0.0
                p -= recipe.optimizer.kwargs["lr"] * (t + draw) / recipe.batch
    return module.state_dict()


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_opacus_agrees_with_the_slow_twin(noise: float) -> None:
    """Clipping, Poisson batches, the expected batch as divisor, and the noise draw by draw."""
    recipe = recipe_of(noise)
    found = train(recipe, records(), rng(7)).weights
    expected = twin(recipe, records(), 7)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-5)


def test_an_empty_batch_is_a_step_of_pure_noise_of_the_right_size() -> None:
    training = Training(recipe_of(noise=2.0, clip=0.5, lr=1.0), records(), rng())
    before = {name: tensor.clone() for name, tensor in training.learner.state().items()}
    training.learner.learn(torch.empty(0, dtype=torch.int64))
    after = training.learner.state()
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before])
    assert float(moved.std()) == pytest.approx(2.0 * 0.5 / 12, rel=0.06)  # 1,810 draws
    assert abs(float(moved.mean())) < 4 * 2.0 * 0.5 / 12 / len(moved) ** 0.5


def test_no_record_moves_the_model_further_than_the_clip() -> None:
    """Whatever a record is, its pull on one noiseless step stays below clip x lr / batch."""
    samples = records()
    outlier = Samples(samples.x.clone(), samples.y.clone())
    outlier.x[5] *= 50
    start = NET.initialised(child_rng(rng(), "init")).module()
    outlier.y[5] = start(outlier.x[5:6]).argmin()  # as wrong as can be
    recipe = recipe_of(noise=0.0, clip=0.5, lr=1.0)
    positions = {
        "with": torch.arange(12),
        "without": torch.tensor([i for i in range(12) if i != 5]),
    }
    found = {}
    for name, chosen in positions.items():
        training = Training(recipe, outlier, rng())
        training.learner.learn(chosen)
        found[name] = torch.cat([t.flatten() for t in training.learner.state().values()])
    pull = float((found["with"] - found["without"]).norm())
    assert 0.99 * 0.5 / 12 < pull < 1.001 * 0.5 / 12


def test_the_seed_fixes_the_noise() -> None:
    one, same = (train(recipe_of(1.0), records(), rng(1)).weights for _ in range(2))
    other = train(recipe_of(1.0), records(), rng(2)).weights
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_the_least_noise_that_keeps_epsilon_is_found() -> None:
    resolved = DpSgd(epsilon=3.0).resolved(records=600, batch=600, steps=40)
    assert 2.9 < resolved.cost().epsilon <= 3.0
    assert resolved.resolved(600, 600, 40) == resolved
    less = DpSgd(noise=0.98 * resolved.noise).resolved(600, 600, 40)
    assert less.cost().epsilon > 3.0
    assert resolved.cost().delta == 1e-5
    assert resolved.cost().covers == "released"


def test_epsilon_agrees_with_the_closed_form_without_sampling() -> None:
    """Full batches: T Gaussian steps are one of noise / sqrt(T) (Balle and Wang 2018, theorem 8)."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    noise, steps = 8.0, 25
    mu = steps**0.5 / noise

    def delta(epsilon: float) -> float:
        lower = norm.cdf(-mu / 2 - epsilon / mu)
        return norm.cdf(mu / 2 - epsilon / mu) - torch.e**epsilon * lower

    exact = brentq(lambda epsilon: delta(epsilon) - 1e-5, 0.01, 20)
    spent = DpSgd(noise=noise).resolved(600, 600, steps).cost().epsilon
    assert exact <= spent <= 1.02 * exact


def test_an_epsilon_out_of_reach_names_the_options() -> None:
    with pytest.raises(TrainingError, match=r"regime\.learning\.epsilon"):
        DpSgd(epsilon=1e-4).resolved(records=600, batch=600, steps=40)


def test_no_noise_is_no_privacy() -> None:
    assert DpSgd(noise=0.0).resolved(600, 300, 40).cost().epsilon == float("inf")


@pytest.mark.parametrize("wrong", [{"epsilon": 0}, {"delta": 1.0}, {"clip": 0}, {"noise": -1}])
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        DpSgd(**wrong)


def test_what_is_not_resolved_says_so() -> None:
    for ask in (DpSgd().cost, DpSgd().mechanism):
        with pytest.raises(UsageError, match="resolved"):
            ask()


def test_layers_that_mix_records_are_refused() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4))
    defense = DpSgd(noise=1.0, batch=12, spent=1.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match="GroupNorm"):
        defense.wrap(module, optimizer, iter(()), rng())


def test_a_regime_resolves_it_for_its_own_records_and_steps() -> None:
    central = Centralized(learning=DpSgd(noise=0.3), batch=30, epochs=5).recipe(NET, 120)
    assert central.sampling == "poisson"
    assert central.learning.kwargs["spent"] == DpSgd(noise=0.3).resolved(120, 30, 20).spent
    federated = FedAvg(
        learning=DpSgd(noise=0.3), clients=4, rounds=5, local_steps=2, batch=15
    ).recipe(NET, 120)
    assert federated.learning.kwargs["spent"] == DpSgd(noise=0.3).resolved(30, 15, 10).spent
    assert federated.mechanism == central.mechanism
