"""Probes: a record sent as one's own is recognised among others' of neighbouring steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from sklearn.metrics import roc_auc_score

from attacks.membership.probe_match import NUMBERS, ROWS, ProbeMatch, Prober
from privbench.contract import (
    Layer,
    Message,
    Need,
    Net,
    Own,
    Public,
    Samples,
    Seat,
    Slice,
    Spec,
    Stand,
    Topology,
    View,
    Weights,
)
from privbench.errors import NotApplicable
from privbench.toolkit.prefix import Prefix, Prefixes

NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": (25, 16, 12, 8, 4)}))
LAYERS = tuple(
    Layer(
        name=f"linear{i}",
        cut=f"relu{i}" if i < 3 else "linear3",
        place=place,
        channels=channels,
        shape=(channels,),
        parameters=(f"linear{i}.weight", f"linear{i}.bias"),
        inputs=(f"linear{i - 1}",) if i else (),
    )
    for i, (place, channels) in enumerate([("stem", 16), ("body", 12), ("body", 8), ("tail", 4)])
)
SLICES = (
    Slice("a", "linear1", tuple(range(12)), needs=(Need("linear0"),), whole=True),
    Slice("b", "linear2", tuple(range(8)), needs=(Need("linear1"),), whole=True),
)
STEPS, OTHERS, OWN, CANDIDATES = 12, 5, 5, 60
TOPOLOGY = Topology("slicenet", ("a", "b"), ("a", "b"), NET, STEPS, STEPS, LAYERS, SLICES)
SEAT = Seat("b", "peer", ("b",), grants=frozenset({"candidates", "own_samples"}))
TRACED = Prefixes(TOPOLOGY, ())
RNG = torch.Generator()


@dataclass(frozen=True)
class Run:
    """What ``b`` has of a training in which it probed, and which candidates others sent."""

    view: View
    member: torch.Tensor


def trained(
    drift: float = 0.01, spoilt: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Run:
    """Others' rows and probes pass ``linear1`` at ``a`` in each step, whose weights drift."""
    rng = torch.Generator().manual_seed(5)
    candidates = Samples(torch.rand(CANDIDATES, 1, 5, 5, generator=rng))
    order = torch.randperm(CANDIDATES, generator=rng)[: STEPS * OTHERS]
    order = order[: CANDIDATES // 2]
    state = dict(NET.initialised(rng).weights or {})
    prober = Prober()
    prober.open(Stand(SEAT, TOPOLOGY, Public(candidates=candidates)), rng)
    messages, own = [], []
    member = torch.zeros(CANDIDATES, dtype=torch.bool)
    for step in range(STEPS):
        state = {n: t + drift * torch.randn(t.shape, generator=rng) for n, t in state.items()}
        held = [Weights(step, "", None, state)]
        known = Prefixes(TOPOLOGY, held, TRACED)
        stem, body = (known.at(name, step) for name in ("linear0", "linear1"))
        for name in LAYERS[0].parameters:
            ends = ("coordinator", "b", "stem_weights")
            prober.act(Message(step, "train", *ends, name, None, state[name]), rng)
        mine = torch.rand(OWN, 1, 5, 5, generator=rng)
        rows = torch.arange(OTHERS, OTHERS + OWN)
        sent = Message(step, "train", "b", "a", "activation", "linear0", None, stem(mine), rows)
        sent = prober.act(sent, rng)
        theirs = order[step * OTHERS : (step + 1) * OTHERS]
        member[theirs] = True
        others = candidates.x[theirs] if len(theirs) else torch.rand(OTHERS, 1, 5, 5, generator=rng)
        both = torch.cat([body(others), _behind(sent.payload, body)])
        both = both if spoilt is None else spoilt(both)
        ends = ("a", "b", "activation")
        messages += [
            sent,
            Message(step, "train", *ends, "linear1", None, both, torch.arange(len(both))),
        ]
        own.append(torch.stack([torch.full_like(rows, step), rows], dim=1))
    view = View(
        seat=SEAT,
        topology=TOPOLOGY,
        victims=torch.empty(0, 2, dtype=torch.int64),
        messages=tuple(replace(m, payload=m.payload.detach()) for m in messages),
        own=Own(torch.cat(own), Samples(torch.zeros(STEPS * OWN, 1, 5, 5))),
        notes=prober.notes(),
        public=Public(candidates=candidates),
    )
    return Run(view, member)


def _behind(value: torch.Tensor, body: Prefix) -> torch.Tensor:
    """``linear1`` of what the stem gave."""
    weight, bias = (body.state[f"linear1.{name}"] for name in ("weight", "bias"))
    return torch.relu(value @ weight.T + bias)


def area(run: Run) -> float:
    return float(roc_auc_score(run.member, ProbeMatch().run(run.view, RNG).scores))


def test_a_member_comes_back_nearer_than_others() -> None:
    assert area(trained(drift=0.0)) == 1.0
    assert area(trained(drift=0.002)) > 0.95


def test_drift_and_noise_hide_it_by_degrees() -> None:
    little, much = area(trained(drift=0.004)), area(trained(drift=0.05))
    assert little > 0.85 and little > much
    noise = torch.Generator().manual_seed(1)
    drowned = trained(0.0, lambda sent: sent + 30 * torch.randn(sent.shape, generator=noise))
    assert abs(area(drowned) - 0.5) < 0.25  # 3.3 standard errors of 30 and 30


def test_null_others_sent_other_records() -> None:
    run = trained(drift=0.0)
    fresh = torch.rand(CANDIDATES, generator=torch.Generator().manual_seed(3)) < 0.5
    assert abs(area(replace(run, member=fresh)) - 0.5) < 0.25


def test_each_own_row_carries_a_candidate_in_turn() -> None:
    notes = trained().view.notes
    assert torch.equal(notes[NUMBERS], torch.arange(CANDIDATES))
    assert len(notes[ROWS].unique(dim=0)) == STEPS * OWN


def test_nobody_learns_from_a_probe() -> None:
    prober, rng = Prober(), torch.Generator()
    prober.open(Stand(SEAT, TOPOLOGY, Public(candidates=Samples(torch.rand(9, 1, 5, 5)))), rng)
    for name in LAYERS[0].parameters:
        told = ("coordinator", "b", "stem_weights")
        weights = NET.initialised(rng).weights or {}
        prober.act(Message(0, "train", *told, name, None, weights[name]), rng)
    sent = ("b", "a", "activation")
    prober.act(
        Message(0, "train", *sent, "linear0", None, torch.ones(2, 16), torch.tensor([1, 3])), rng
    )
    slopes = Message(
        0, "train", "b", "a", "gradient", "linear1", None, torch.ones(4, 12), torch.arange(4)
    )
    assert prober.act(slopes, rng).payload.sum(dim=1).tolist() == [12, 0, 12, 0]
    assert slopes.payload.all()
    tail = Message(
        0, "train", "b", "coordinator", "tail_gradient", "linear3.bias", None, torch.ones(4)
    )
    assert not prober.act(tail, rng).payload.any()
    theirs = replace(tail, sender="a", receiver="b")
    assert prober.act(theirs, rng) is theirs


def test_silent_rows_and_half_precision_do_no_harm() -> None:
    run = trained(
        0.0, lambda sent: torch.where(torch.rand(sent.shape[0], 1) < 0.3, 0.0, sent).half()
    )
    scores = ProbeMatch().run(run.view, RNG).scores
    assert scores.isfinite().all()
    assert roc_auc_score(run.member, scores) > 0.6


def test_it_says_what_it_lacks() -> None:
    view = trained().view
    elsewhere = replace(view.own, rows=view.own.rows + 1)
    for lacking, words in (
        (replace(view, messages=()), "threat.steps=all"),
        (replace(view, own=elsewhere), "capture.samples=0"),
        (replace(view, public=Public()), "candidates"),
    ):
        with pytest.raises(NotApplicable, match=words):
            ProbeMatch().run(lacking, RNG)


def test_who_alone_is_fed_by_the_stem_does_not_probe() -> None:
    alone = replace(TOPOLOGY, slices=(replace(SLICES[0], party="b"), SLICES[1]))
    known = Public(candidates=Samples(torch.rand(4, 1, 5, 5)))
    with pytest.raises(NotApplicable, match="attack=activation_match"):
        Prober().open(Stand(SEAT, alone, known), RNG)
    with pytest.raises(NotApplicable, match="candidates"):
        Prober().open(Stand(SEAT, TOPOLOGY, Public()), RNG)
