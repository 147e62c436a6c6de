"""The training loop against a plain one, and what it refuses."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privbench.contract import (
    GaussianMechanism,
    Net,
    Recipe,
    Samples,
    Spec,
    batches,
    child_rng,
    optimizer_for,
)
from privbench.errors import PluginError, TrainingError, UsageError
from privbench.regimes.training import Training, train, training_flops


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def recipe_of(net: Net, **changes: object) -> Recipe:
    plain = Recipe(net=net, optimizer=Spec("torch.optim.SGD", {"lr": 0.3}), epochs=2, batch=32)
    return replace(plain, **changes)


def same(one: Net, other: Net) -> bool:
    return all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_training_is_a_plain_loop_over_batches(net: Net, digits: Samples) -> None:
    """Bit-equal to SGD written down by hand, the smaller last batch of an epoch included."""
    recipe = recipe_of(net)
    module = net.initialised(child_rng(rng(), "init")).module().train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    order = batches(recipe, len(digits), child_rng(rng(), "batches"))
    for _ in range(2 * 10):  # 300 records in batches of 32
        batch = digits[next(order)]
        optimizer.zero_grad()
        F.cross_entropy(module(batch.x), batch.y).backward()
        optimizer.step()
    assert same(train(recipe, digits, rng()), net.holding(module))


def test_same_seed_same_bits_and_global_generator_untouched(net: Net, digits: Samples) -> None:
    before = torch.get_rng_state()
    first = train(recipe_of(net), digits, rng())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert same(first, train(recipe_of(net), digits, rng()))
    assert not same(first, train(recipe_of(net), digits, rng(4)))


def forgetful() -> nn.Module:
    """A network with dropout."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10))


def test_dropout_draws_from_the_seed_alone(
    digits: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "forgetful_nets", SimpleNamespace(forgetful=forgetful))
    net = Net(Spec("forgetful_nets.forgetful"))
    first = train(recipe_of(net), digits, rng())
    torch.manual_seed(1)
    assert same(first, train(recipe_of(net), digits, rng()))


class _Noisy(nn.Linear):
    """Draws from torch's global generator in each step."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        flat = input.flatten(1)
        return super().forward(flat + 0.1 * torch.randn(flat.shape))


def test_noise_of_a_network_draws_from_the_seed_alone(
    digits: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets = SimpleNamespace(noisy=lambda: _Noisy(64, 10))
    monkeypatch.setitem(sys.modules, "noisy_nets", nets)
    recipe = recipe_of(Net(Spec("noisy_nets.noisy")), sampling="poisson", batch=8)
    first = Training(recipe, digits, rng())
    first.learner.learn(
        torch.empty(0, dtype=torch.int64)
    )  # of which nothing is learned about draws
    second = Training(recipe, digits, rng())
    second.learner.learn(torch.empty(0, dtype=torch.int64))
    before = torch.get_rng_state()
    for _ in first:
        continue
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    for _ in second:
        continue
    assert same(first.result(), second.result())


def test_steps_stop_earlier_but_never_later(net: Net, digits: Samples) -> None:
    assert Training(recipe_of(net, steps=7), digits, rng()).steps == 7
    assert Training(recipe_of(net, steps=7000), digits, rng()).steps == 20
    assert same(
        train(recipe_of(net, steps=10), digits, rng()),
        train(recipe_of(net, epochs=1), digits, rng()),
    )


def test_known_weights_are_the_start(net: Net, digits: Samples) -> None:
    start = net.initialised(rng(8))
    assert same(train(recipe_of(start, steps=0), digits, rng()), start)


def test_empty_poisson_batch_changes_nothing(net: Net, digits: Samples) -> None:
    training = Training(recipe_of(net, sampling="poisson"), digits, rng())
    before = {name: tensor.clone() for name, tensor in training.learner.state().items()}
    training.learner.learn(torch.empty(0, dtype=torch.int64))
    after = training.learner.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_arithmetic_follows_the_type_of_the_records(net: Net, digits: Samples) -> None:
    trained = train(recipe_of(net, steps=3), Samples(digits.x.double(), digits.y), rng())
    assert all(tensor.dtype == torch.float64 for tensor in trained.weights.values())


def test_flops_are_three_products_a_layer_and_two_of_the_first(net: Net, digits: Samples) -> None:
    assert training_flops(net, digits) == 2 * (2 * 64 * 24 + 3 * (24 * 16 + 16 * 10))


@pytest.mark.slow
def test_flops_are_those_that_torch_counts(
    digits: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(162, 3)
    )
    monkeypatch.setitem(sys.modules, "some_nets", SimpleNamespace(conv=lambda: module))
    with FlopCounterMode(display=False) as counter:
        module(digits.x[:1]).sum().backward()
    assert training_flops(Net(Spec("some_nets.conv")), digits) == counter.get_total_flops()


def test_nan_is_an_error_that_names_the_learning_rate(net: Net, digits: Samples) -> None:
    wild = Spec("torch.optim.SGD", {"lr": 1e30})
    with pytest.raises(TrainingError, match=r"regime.lr"):
        train(recipe_of(net, optimizer=wild), digits, rng())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"loss": "cross"}, UsageError, "cross_entropy"),
        ({"augmentation": Spec("torch.nn.Flatten")}, PluginError, "Augmentation"),
        ({"mechanism": GaussianMechanism(1.0, 1.0)}, TrainingError, "learning"),
    ],
)
def test_what_the_loop_cannot_do_is_refused(
    net: Net, digits: Samples, changes: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        train(recipe_of(net, **changes), digits, rng())


def test_records_without_labels_are_refused(net: Net, digits: Samples) -> None:
    with pytest.raises(UsageError, match="labels"):
        train(recipe_of(net), Samples(digits.x), rng())


def test_a_linear_decay_multiplies_every_step_by_what_is_left():
    recipe = Recipe(Net(Spec("torch.nn.Linear", {})), Spec("torch.optim.SGD", {"lr": 1.0}), 1, 1)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = optimizer_for(replace(recipe, decay="linear"), [weight], 4)
    seen = []
    for _ in range(4):
        weight.grad = -torch.ones(1)
        before = weight.item()
        optimizer.step()
        seen.append(weight.item() - before)
    assert seen == [1.0, 0.75, 0.5, 0.25]
    with pytest.raises(UsageError, match=r"regime\.decay='cosine'; expected constant or linear"):
        optimizer_for(replace(recipe, decay="cosine"), [weight], 4)
