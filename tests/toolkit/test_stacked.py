"""The stacked trainer against its slow obvious twin, and the independence of its bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from privbench.contract import (
    Federation,
    GaussianMechanism,
    Net,
    Recipe,
    Samples,
    Spec,
    batches,
    child_rng,
    load_name,
    spec_of,
)
from privbench.errors import TrainingError, UsageError
from privbench.toolkit import stacked
from privbench.toolkit.chain import chain_of
from privbench.toolkit.stacked import Stacked, stackable, train_stacked

TRAIN = "privbench.regimes.training.train"
FEDERATED = "privbench.regimes.fedavg.federated_train"
MODELS = 4


def members(pool: Samples) -> torch.Tensor:
    """Halves of an odd pool: 30 records in models 0 and 2, 31 in models 1 and 3."""
    member = torch.zeros(MODELS, len(pool), dtype=torch.bool)
    for i in range(MODELS):
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(i))
        member[i, order[: 30 + i % 2]] = True
    return member


def generators() -> list[torch.Generator]:
    root = torch.Generator().manual_seed(7)
    return [child_rng(root, "model", i) for i in range(MODELS)]


def trained(recipe: Recipe, pool: Samples) -> Stacked:
    return train_stacked(recipe, pool, members(pool), generators())


def largest_difference(stack: Stacked, nets: list[Net]) -> float:
    return max(
        float((stack.of(i)[name] - tensor).abs().max())
        for i, net in enumerate(nets)
        for name, tensor in (net.weights or {}).items()
    )


@pytest.mark.parametrize(
    ("target", "kwargs"),
    [
        ("SGD", {"lr": 0.3}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}),
        ("Adam", {"lr": 1e-2}),
        ("AdamW", {"lr": 1e-2, "weight_decay": 0.1}),
        ("RMSprop", {"lr": 1e-3}),
    ],
)
def test_agrees_with_one_after_another(
    recipe: Recipe, pool: Samples, target: str, kwargs: dict[str, Any]
) -> None:
    recipe = replace(recipe, optimizer=Spec(f"torch.optim.{target}", kwargs))
    assert stackable(recipe, TRAIN, pool.x.shape[1:])
    train = load_name(TRAIN)
    nets = [
        train(recipe, pool[mine], rng)
        for mine, rng in zip(members(pool), generators(), strict=True)
    ]
    assert largest_difference(trained(recipe, pool), nets) < 2e-6


@pytest.mark.parametrize("change", [{"steps": 5}, {"sampling": "poisson"}, {"batch": 100}])
def test_agrees_where_batches_are_uneven(
    recipe: Recipe, pool: Samples, change: dict[str, Any]
) -> None:
    recipe = replace(recipe, **change)
    train = load_name(TRAIN)
    nets = [
        train(recipe, pool[mine], rng)
        for mine, rng in zip(members(pool), generators(), strict=True)
    ]
    assert largest_difference(trained(recipe, pool), nets) < 2e-6


@pytest.mark.parametrize(
    "activation", [nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.LeakyReLU(0.2), nn.ELU(inplace=True)]
)
def test_gradients_are_those_of_autograd(pool: Samples, activation: nn.Module) -> None:
    from privbench.toolkit.copies import Copies

    module = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), activation, nn.Linear(6, 4, bias=False))
    links = chain_of(module, (1, 3, 3))
    assert links is not None and links[1].bias is None
    copies = Copies(links, [module.state_dict()] * 2, torch.device("cpu"))
    x, y = pool.x[:10].flatten(1), pool.y[:10]
    values, before = copies.forward(x.expand(2, -1, -1))
    one_hot = nn.functional.one_hot(y, 4)
    copies.backward(values, before, (values[-1].softmax(-1) - one_hot) / 10)
    nn.functional.cross_entropy(module(pool.x[:10]), y).backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(copies.gradients[name][1], parameter.grad)


def clipped_and_noised(recipe: Recipe, samples: Samples, rng: torch.Generator) -> Net:
    """DP-SGD with a gradient for every sample: the slow obvious twin of norms and outer products."""
    from opacus.grad_sample import GradSampleModule

    mechanism = recipe.mechanism
    assert mechanism is not None
    module = recipe.net.initialised(child_rng(rng, "init")).module().train()
    per_sample = GradSampleModule(module, loss_reduction="sum")
    optimizer = load_name(recipe.optimizer.target)(module.parameters(), **recipe.optimizer.kwargs)
    order, noise = batches(recipe, len(samples), child_rng(rng, "batches")), child_rng(rng, "noise")
    for _ in range(recipe.epochs * -(-len(samples) // recipe.batch)):
        batch = samples[next(order)]
        per_sample.zero_grad()
        nn.functional.cross_entropy(per_sample(batch.x), batch.y, reduction="sum").backward()
        grads = [p.grad_sample for p in module.parameters()]
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
        factor = (mechanism.clip / (norms + 1e-6)).clamp(max=1.0)
        for p, g in zip(module.parameters(), grads, strict=True):
            std = mechanism.noise * mechanism.clip
            drawn = torch.normal(0.0, std, p.shape, generator=noise)
            p.grad = (torch.einsum("i,i...->...", factor, g) + drawn) / recipe.batch
        optimizer.step()
    return recipe.net.holding(module)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_dp_agrees_with_a_gradient_for_every_sample(
    recipe: Recipe, pool: Samples, clip: float
) -> None:
    recipe = replace(
        recipe,
        batch=14,
        sampling="poisson",
        mechanism=GaussianMechanism(clip=clip, noise=0.02),
        learning=Spec("defenses.dpsgd.DpSgd"),
    )
    nets = [
        clipped_and_noised(recipe, pool[mine], rng)
        for mine, rng in zip(members(pool), generators(), strict=True)
    ]
    assert largest_difference(trained(recipe, pool), nets) < 1e-5


def test_dp_noise_has_the_stated_size(recipe: Recipe, pool: Samples) -> None:
    """With a vanishing gradient, one step moves each weight by lr * N(0, noise * clip) / batch."""
    recipe = replace(
        recipe,
        steps=1,
        sampling="poisson",
        mechanism=GaussianMechanism(clip=1e-6, noise=5e6),
        learning=Spec("defenses.dpsgd.DpSgd"),
    )
    stack = trained(recipe, pool)
    moved = [
        (stack.of(i)[name] - tensor).flatten()
        for i, rng in enumerate(generators())
        for name, tensor in (recipe.net.initialised(child_rng(rng, "init")).weights or {}).items()
    ]
    std = float(torch.cat(moved).std())
    assert std == pytest.approx(0.3 * 5.0 / recipe.batch, rel=0.08)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {
            "sampling": "poisson",
            "mechanism": GaussianMechanism(1.0, 1.0),
            "learning": Spec("defenses.dpsgd.DpSgd"),
        },
        {"federation": Federation(clients=3, rounds=3, local_steps=2)},
    ],
)
def test_bits_do_not_depend_on_how_many_are_trained_together(
    pool: Samples, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(Spec("privbench.models.mlp.Mlp", {"widths": (64, 128, 32, 10)}))
    recipe = Recipe(net, Spec("torch.optim.Adam", {"lr": 1e-2}), epochs=8, batch=8)
    recipe = replace(recipe, **change)
    rng = torch.Generator().manual_seed(5)
    pool = Samples(torch.rand(61, 1, 8, 8, generator=rng), pool.y)
    together = trained(recipe, pool)
    monkeypatch.setattr(stacked, "WIDTH", 1)
    alone = train_stacked(recipe, pool, members(pool)[2:3], generators()[2:3])
    for name, tensor in alone.of(0).items():
        assert torch.equal(tensor, together.of(2)[name]), name


def test_federated_agrees_with_one_after_another(recipe: Recipe, pool: Samples) -> None:
    federated_train = load_name(FEDERATED)
    recipe = replace(recipe, batch=4, federation=Federation(clients=4, rounds=4, local_steps=3))
    assert stackable(recipe, FEDERATED, pool.x.shape[1:])
    nets = [
        federated_train(recipe, pool[mine], rng)
        for mine, rng in zip(members(pool), generators(), strict=True)
    ]
    assert largest_difference(trained(recipe, pool), nets) < 2e-6


@dataclass
class _Odd:
    """Something that is no chain, and why."""

    why: str
    module: nn.Module


class _Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x)) + x


SHARED = nn.Linear(4, 4)


@pytest.mark.parametrize(
    "odd",
    [
        _Odd("draws", nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))),
        _Odd("has buffers", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))),
        _Odd("convolves", nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))),
        _Odd("adds its input", _Skip()),
        _Odd("uses a layer twice", nn.Sequential(SHARED, nn.ReLU(), SHARED)),
        _Odd("has no layer", nn.Sequential(nn.Flatten())),
        _Odd("is double", nn.Sequential(nn.Linear(4, 2)).double()),
    ],
    ids=lambda odd: odd.why,
)
def test_what_is_no_chain_is_not_stacked(odd: _Odd) -> None:
    assert chain_of(odd.module, (4,)) is None


def test_an_image_that_is_not_flattened_is_no_chain() -> None:
    assert chain_of(nn.Sequential(nn.Linear(4, 2)), (4,)) is not None
    assert chain_of(nn.Sequential(nn.Linear(4, 2)), (3, 4)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "multi_margin_loss"},
        {"optimizer": Spec("torch.optim.LBFGS")},
        {"augmentation": Spec("somewhere.Flip")},
        {"learning": Spec("defenses.dpsgd.DpSgd")},
        {"federation": Federation(2, 1, 1)},
    ],
)
def test_recipes_that_are_not_stacked(
    recipe: Recipe, pool: Samples, change: dict[str, Any]
) -> None:
    assert not stackable(replace(recipe, **change), TRAIN, pool.x.shape[1:])
    assert not stackable(recipe, "mine.train", pool.x.shape[1:])


def test_refuses_what_it_cannot_do(recipe: Recipe, pool: Samples) -> None:
    with pytest.raises(UsageError, match="generator"):
        train_stacked(recipe, pool, members(pool), generators()[:2])
    with pytest.raises(TrainingError, match="records"):
        train_stacked(recipe, pool, torch.zeros(1, 61, dtype=torch.bool), generators()[:1])
    wild = replace(recipe, optimizer=Spec("torch.optim.SGD", {"lr": 1e30}))
    with pytest.raises(TrainingError, match="NaN"):
        trained(wild, pool)


@pytest.mark.filterwarnings("ignore")
def test_dp_agrees_with_the_defense_of_the_target(recipe: Recipe, pool: Samples) -> None:
    defense = load_name("defenses.dpsgd.DpSgd")(noise=0.05, clip=0.5).resolved(30, 10, 6)
    recipe = replace(
        recipe,
        batch=10,
        sampling="poisson",
        mechanism=defense.mechanism(),
        learning=spec_of(defense),
    )
    train = load_name(TRAIN)
    nets = [
        train(recipe, pool[mine], rng)
        for mine, rng in zip(members(pool), generators(), strict=True)
    ]
    assert largest_difference(trained(recipe, pool), nets) < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_dp_at_the_clients_agrees_with_one_after_another(recipe: Recipe, pool: Samples) -> None:
    defense = load_name("defenses.dpsgd.DpSgd")(noise=0.05, clip=0.5).resolved(10, 5, 4)
    recipe = replace(
        recipe,
        batch=5,
        sampling="poisson",
        mechanism=defense.mechanism(),
        learning=spec_of(defense),
        federation=Federation(clients=3, rounds=2, local_steps=2),
    )
    train = load_name(FEDERATED)
    nets = [
        train(recipe, pool[mine], rng)
        for mine, rng in zip(members(pool), generators(), strict=True)
    ]
    assert largest_difference(trained(recipe, pool), nets) < 1e-5
