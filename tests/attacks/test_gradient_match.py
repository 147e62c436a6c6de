"""Gradients at a cut: a record is recognised by its own, as far as the weights are those of the step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from sklearn.metrics import roc_auc_score

from attacks.membership.gradient_match import GradientMatch
from privbench.contract import (
    Layer,
    Message,
    Net,
    Public,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
    Weights,
)
from privbench.errors import NotApplicable
from privbench.toolkit.slopes import slopes_at

NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": (25, 16, 12, 4)}))
LAYER = Layer("linear1", "relu1", "body", 12, (12,), ("linear1.weight", "linear1.bias"))
TOPOLOGY = Topology("slicenet", ("a", "b"), ("a",), NET, 2, 2, layers=(LAYER,))
BATCH, CANDIDATES = 20, 80
RNG = torch.Generator()


@dataclass(frozen=True)
class Seen:
    """What ``b`` saw of two steps, and which candidates were in them."""

    view: View
    member: torch.Tensor


def seen(drift: float = 0.0, units: tuple[int, ...] | None = None, half: bool = False) -> Seen:
    """``b`` is sent the gradients of two batches; it knows the weights of the first."""
    rng = torch.Generator().manual_seed(4)
    labels = torch.randint(4, (CANDIDATES,), generator=rng)
    candidates = Samples(torch.rand(CANDIDATES, 1, 5, 5, generator=rng), labels)
    order = torch.randperm(CANDIDATES, generator=rng)[: 2 * BATCH]
    state = dict(NET.initialised(rng).weights or {})
    held, messages = Weights(0, "", None, state), []
    for step, batch in enumerate(order.split(BATCH)):
        if step:
            state = {n: t + drift * torch.randn(t.shape, generator=rng) for n, t in state.items()}
        module = replace(NET, weights=state).module().eval()
        sent = slopes_at(module, LAYER, candidates[batch]) / BATCH
        sent = sent if units is None else sent[:, list(units)]
        sent = sent.bfloat16() if half else sent
        ends = ("a", "b", "gradient", "linear1")
        messages.append(Message(step, "train", *ends, units, sent, torch.arange(BATCH)))
    rows = torch.cartesian_prod(torch.arange(2), torch.arange(BATCH))
    member = torch.zeros(CANDIDATES, dtype=torch.bool).index_fill(0, order, True)
    grants = frozenset({"candidates", "initial_weights"})
    seat = Seat("b", "peer", ("b",), grants=grants)
    known = Public(candidates=candidates)
    return Seen(View(seat, TOPOLOGY, rows, tuple(messages), (held,), public=known), member)


def area(found: Seen) -> float:
    return float(roc_auc_score(found.member, GradientMatch().run(found.view, RNG).scores))


@pytest.mark.parametrize("units", [None, (0, 2, 3, 7, 9, 11)])
def test_finds_whose_gradient_it_is(units: tuple[int, ...] | None) -> None:
    assert area(seen(units=units)) > 0.97  # rows that leave these units silent have no gradient


def test_old_weights_and_half_precision_hide_some() -> None:
    exact, coarse, old = area(seen()), area(seen(half=True)), area(seen(drift=0.3))
    assert exact > coarse > 0.6
    assert exact > old > 0.6  # the first step is as exact as before


def test_null_gradients_of_other_records() -> None:
    found = seen()
    rng = torch.Generator().manual_seed(6)
    fresh = replace(found.view.public.candidates, x=torch.rand(CANDIDATES, 1, 5, 5, generator=rng))
    view = replace(found.view, public=Public(candidates=fresh))
    assert abs(area(Seen(view, found.member)) - 0.5) < 0.22  # 3.3 standard errors of 40 and 40


def test_what_a_seat_sends_itself_is_left_out() -> None:
    found = seen()
    own = tuple(replace(m, sender="b", receiver="a") for m in found.view.messages)
    with pytest.raises(NotApplicable, match="threat=host"):
        GradientMatch().run(replace(found.view, messages=own), RNG)


def test_nothing_flows_back_and_it_says_what_it_lacks() -> None:
    view = seen().view
    still = tuple(replace(m, payload=torch.zeros_like(m.payload)) for m in view.messages)
    assert len(GradientMatch().run(replace(view, messages=still), RNG).scores.unique()) == 1
    with pytest.raises(NotApplicable, match=r"threat\.steps=first:8"):
        GradientMatch().run(replace(view, weights=()), RNG)
