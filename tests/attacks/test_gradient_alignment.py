"""Membership from an update: the records behind it are told from others of their classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from memorised import NET, RECIPE, TRAIN, built
from sklearn.metrics import roc_auc_score

from attacks.membership.gradient_alignment import GradientAlignment
from attacks.membership.gradient_classifier import GradientClassifier, _simulated
from defenses.quantize import Quantize
from privbench.contract import (
    Federation,
    Message,
    Public,
    Seat,
    Spec,
    Topology,
    View,
    Weights,
    augmented,
    child_rng,
    spec_of,
)
from privbench.data.augmentations import Moved
from privbench.errors import NotApplicable, UsageError

ROWS = 12  # records of one client in one step
CLASSIFIER = GradientClassifier(simulations=8)
SGD = Spec("torch.optim.SGD", {"lr": 0.1})


def _view(public: Public, half: bool = False) -> tuple[View, torch.Tensor]:
    """Four clients send the gradient of some candidates each; who they were is known to the test."""
    rng = torch.Generator().manual_seed(3)
    candidates = public.candidates
    state = dict(NET.initialised(child_rng(rng, "start")).weights)
    module = replace(NET, weights=state).module()
    member = torch.zeros(len(candidates), dtype=torch.bool)
    messages = [
        Message(0, "train", "server", "client-0", "global_weights", name, None, tensor)
        for name, tensor in state.items()
    ]
    for client, mine in enumerate(torch.randperm(len(candidates), generator=rng)[:48].split(ROWS)):
        member[mine] = True
        module.zero_grad()
        F.cross_entropy(module(candidates.x[mine]), candidates.y[mine]).backward()
        for name, parameter in module.named_parameters():
            sent = -0.1 * parameter.grad
            sent = sent.half() if half else sent
            rows = torch.arange(client * ROWS, (client + 1) * ROWS)
            ends = f"client-{client}", "server"
            messages.append(Message(0, "train", *ends, "update", name, None, sent, rows))
    grants = frozenset({"candidates", "auxiliary", "recipe", "model_weights"})
    seat = Seat("server", "infrastructure", ("server",), grants=grants)
    clients = tuple(f"client-{client}" for client in range(4))
    topology = Topology("fedavg", (*clients, "server"), clients, NET, steps=1, steps_per_epoch=1)
    recipe = replace(RECIPE, federation=Federation(4, 1, 1))
    known = replace(public, recipe=recipe, trainer=TRAIN, net=None)
    weights = (Weights(0, "", None, state),)
    nobody = torch.empty(0, 2, dtype=torch.int64)
    return View(seat, topology, nobody, tuple(messages), weights, public=known), member


@pytest.fixture(scope="module")
def public() -> Public:
    return built().view.public


@pytest.mark.parametrize("half", [False, True])
def test_members_of_an_update_score_higher(public: Public, half: bool) -> None:
    view, member = _view(public, half)
    scores = GradientAlignment().run(view, torch.Generator().manual_seed(0)).scores
    assert roc_auc_score(member, scores) > 0.85


def test_few_bits_and_noise_weaken_it_by_degrees(public: Public) -> None:
    """On updates, which both make larger than the gradients in them."""
    view, member = _view(public)

    def area(spoilt: Callable[[Message], torch.Tensor]) -> float:
        sent = tuple(
            replace(each, payload=spoilt(each)) if each.kind == "update" else each
            for each in view.messages
        )
        scores = GradientAlignment().run(replace(view, messages=sent), torch.Generator()).scores
        return float(roc_auc_score(member, scores))

    rng = torch.Generator().manual_seed(5)
    bits = [area(lambda each, b=b: Quantize(bits=b).send(each, rng).payload) for b in (8, 4, 2)]
    assert bits[0] > 0.85 and bits[0] > bits[1] > bits[2] > 0.5

    def noisy(each: Message, share: float) -> torch.Tensor:
        spread = share * each.payload.norm() / each.payload.numel() ** 0.5
        return each.payload + spread * torch.randn(each.payload.shape, generator=rng)

    little, much = (area(lambda each, s=s: noisy(each, s)) for s in (0.1, 30.0))
    assert little > 0.85 and abs(much - 0.5) < 0.2


def test_updates_of_some_clients_tell_of_their_records_alone(public: Public) -> None:
    view, member = _view(public)
    some = tuple(m for m in view.messages if m.sender != "client-0" and m.sender != "client-1")
    scores = GradientAlignment().run(replace(view, messages=some), torch.Generator()).scores
    whole = GradientAlignment().run(view, torch.Generator()).scores
    assert roc_auc_score(member, whole) > roc_auc_score(member, scores) > 0.6


def test_null_who_was_in_is_another_half(public: Public) -> None:
    view, _ = _view(public)
    scores = GradientAlignment().run(view, torch.Generator().manual_seed(0)).scores
    rng = torch.Generator().manual_seed(1)
    areas = []
    for _ in range(40):
        member = torch.zeros(len(scores), dtype=torch.bool)
        member[torch.randperm(len(scores), generator=rng)[:48]] = True
        areas.append(roc_auc_score(member, scores))
    assert abs(sum(areas) / 40 - 0.5) < 0.03


def test_without_a_gradient_it_says_where_to_look(public: Public) -> None:
    view, _ = _view(public)
    with pytest.raises(NotApplicable, match=r"threat\.steps"):
        GradientAlignment().run(replace(view, messages=()), torch.Generator())


@pytest.mark.parametrize("half", [False, True])
def test_a_classifier_learns_it_from_simulated_batches(public: Public, half: bool) -> None:
    view, member = _view(public, half)
    scores = CLASSIFIER.run(view, torch.Generator().manual_seed(0)).scores
    assert roc_auc_score(member, scores) > 0.85
    others = torch.randperm(len(member), generator=torch.Generator().manual_seed(2))
    assert abs(roc_auc_score(member[others], scores) - 0.5) < 0.2


@pytest.mark.parametrize("augmentation", [None, spec_of(Moved())])
def test_a_classifier_follows_local_steps(public: Public, augmentation: Spec | None) -> None:
    """Batches are simulated as the recipe says: all tensors move on the way, and copies are drawn."""
    view, _ = _view(public)
    federation, draws = Federation(4, 1, 3), torch.Generator().manual_seed(6)
    recipe = replace(RECIPE, optimizer=SGD, federation=federation, augmentation=augmentation)
    module = replace(NET, weights=dict(view.weights[0].tensors)).module()
    names = [name for name, _ in module.named_parameters()]
    member = torch.zeros(1, len(public.auxiliary), dtype=torch.bool)
    member[0, :6] = True
    (found,) = _simulated(module, public.auxiliary, member, names, recipe, draws)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = torch.cat([p.detach().flatten() for p in module.parameters()])
    for local, rows in enumerate(torch.arange(6).split(2)):
        optimizer.zero_grad()
        batch = augmented(recipe, public.auxiliary[rows], rows, child_rng(draws, 0), local)
        F.cross_entropy(module(batch.x), batch.y).backward()
        optimizer.step()
    after = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert torch.allclose(found.float(), (before - after) / 0.3, atol=1e-5)


def test_a_classifier_says_what_it_lacks(public: Public) -> None:
    view, _ = _view(public)
    few = replace(public, auxiliary=public.auxiliary[:3])
    with pytest.raises(NotApplicable, match="at least 4"):
        CLASSIFIER.run(replace(view, public=few), torch.Generator())
    with pytest.raises(NotApplicable, match=r"threat\.steps"):
        CLASSIFIER.run(replace(view, messages=()), torch.Generator())
    with pytest.raises(UsageError, match="simulations"):
        GradientClassifier(simulations=0)
