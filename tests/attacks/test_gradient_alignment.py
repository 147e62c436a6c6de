"""Membership from an update: the records behind it are told from others of their classes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from memorised import NET, RECIPE, TRAIN, built
from sklearn.metrics import roc_auc_score

from attacks.membership.gradient_alignment import GradientAlignment
from privbench.contract import Federation, Message, Public, Seat, Topology, View, Weights, child_rng
from privbench.errors import NotApplicable

ROWS = 12  # records of one client in one step


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
