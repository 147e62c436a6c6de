"""Matching activations: exact where the weights are known, weaker under noise, nothing without."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from sklearn.metrics import roc_auc_score

from attacks.membership.activation_match import ActivationMatch
from defenses.quantize import Quantize
from privbench.contract import (
    Layer,
    Message,
    Net,
    Public,
    Recipe,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
    Weights,
    child_rng,
    spec_of,
)
from privbench.data.augmentations import Moved
from privbench.errors import NotApplicable
from privbench.toolkit.prefix import prefix

NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": (25, 16, 12, 4)}))
LAYERS = tuple(
    Layer(
        name=f"linear{i}",
        cut=cut,
        place=place,
        channels=channels,
        shape=(channels,),
        parameters=(f"linear{i}.weight", f"linear{i}.bias"),
        inputs=(f"linear{i - 1}",) if i else (),
    )
    for i, (cut, place, channels) in enumerate(
        [("relu0", "stem", 16), ("relu1", "body", 12), ("linear2", "tail", 4)]
    )
)
TOPOLOGY = Topology("slicenet", ("a", "b"), ("a", "b"), NET, 4, 4, layers=LAYERS)
STEPS, BATCH, CANDIDATES = 4, 10, 80


@dataclass(frozen=True)
class Capture:
    """What the device ``b`` saw, and which candidates were in the four batches."""

    view: View
    member: torch.Tensor


def captured(
    std: float = 0.0, units: tuple[int, ...] | None = None, moved: bool = False
) -> Capture:
    """Every member crosses once, in one of four batches, each under other weights."""
    rng = torch.Generator().manual_seed(8)
    candidates = Samples(torch.rand(CANDIDATES, 1, 5, 5, generator=rng))
    auxiliary = Samples(torch.rand(30, 1, 5, 5, generator=rng))
    order = torch.randperm(CANDIDATES, generator=rng)[: STEPS * BATCH]
    weights, messages = [], []
    for step in range(STEPS):
        state = NET.initialised(child_rng(rng, step)).weights
        held = {name: state[name] for name in LAYERS[0].parameters}
        weights.append(Weights(step, "linear0", None, held))
        batch = candidates.x[order[step * BATCH : (step + 1) * BATCH]]
        batch = Moved()(batch, rng) if moved else batch
        payload = prefix(TOPOLOGY, weights, "linear0", step)(batch).detach()
        payload = payload + std * torch.randn(payload.shape, generator=rng)
        payload = payload if units is None else payload[:, list(units)]
        rows = torch.arange(BATCH)
        message = Message(step, "train", "a", "b", "activation", "linear0", units, payload, rows)
        messages.append(message)
    member = torch.zeros(CANDIDATES, dtype=torch.bool).index_fill(0, order, True)
    view = View(
        seat=Seat("b", "peer", ("b",), grants=frozenset({"candidates", "prefix_weights"})),
        topology=TOPOLOGY,
        victims=torch.empty(0, 2, dtype=torch.int64),
        messages=tuple(messages),
        weights=tuple(weights),
        public=Public(candidates=candidates, auxiliary=auxiliary),
    )
    return Capture(view, member)


def area(capture: Capture) -> float:
    scores = ActivationMatch().run(capture.view, torch.Generator()).scores
    return float(roc_auc_score(capture.member, scores))


@pytest.mark.parametrize("units", [None, (1, 3, 4, 6, 8, 11)])
def test_finds_every_member(units: tuple[int, ...] | None) -> None:
    capture = captured(units=units)
    guess = ActivationMatch().run(capture.view, torch.Generator())
    assert area(capture) == 1.0
    assert guess.threshold is not None
    assert torch.equal(guess.scores > guess.threshold, capture.member)


def test_noise_on_the_wire_weakens_it_by_degrees() -> None:
    little, much, drowned = (area(captured(std=std)) for std in (0.01, 0.06, 30.0))
    assert little > 0.97 and little > much > 0.55
    assert abs(drowned - 0.5) < 0.22  # 3.3 standard errors of an AUC of 40 and 40


def test_few_bits_weaken_it_by_degrees() -> None:
    capture = captured()
    areas = []
    for bits in (4, 3, 2):
        rng = torch.Generator().manual_seed(1)
        sent = tuple(Quantize(bits=bits).send(message, rng) for message in capture.view.messages)
        areas.append(area(replace(capture, view=replace(capture.view, messages=sent))))
    assert areas[0] > 0.97 and areas[0] > areas[1] > areas[2] > 0.5


def test_copies_are_recognised_by_whoever_knows_how_they_are_made() -> None:
    """Unaware of the recipe it looks for records, of which one in 18 crossed as it is."""
    capture = captured(moved=True)
    recipe = Recipe(NET, Spec("torch.optim.SGD"), 1, BATCH, augmentation=spec_of(Moved()))
    public = replace(capture.view.public, recipe=recipe)
    aware = replace(capture, view=replace(capture.view, public=public))
    assert area(aware) == 1.0
    assert area(capture) < 0.75
    guess = ActivationMatch().run(aware.view, torch.Generator())
    assert torch.equal(guess.scores > guess.threshold, capture.member)
    rng = torch.Generator().manual_seed(99)
    fresh = Samples(torch.rand(CANDIDATES, 1, 5, 5, generator=rng))
    strangers = replace(aware.view, public=replace(public, candidates=fresh))
    assert abs(area(replace(aware, view=strangers)) - 0.5) < 0.22


def test_whom_it_did_not_capture_it_does_not_recognise() -> None:
    """Exact for those in the steps that were recorded, chance for others."""
    capture = captured()
    half = replace(capture.view, messages=capture.view.messages[::2])
    guess = ActivationMatch().run(half, torch.Generator())
    assert int((guess.scores > guess.threshold).sum()) == STEPS * BATCH // 2
    assert abs(area(replace(capture, view=half)) - 0.75) < 0.15


def test_null_activations_of_other_records() -> None:
    capture = captured()
    rng = torch.Generator().manual_seed(99)
    fresh = Samples(torch.rand(CANDIDATES, 1, 5, 5, generator=rng))
    public = replace(capture.view.public, candidates=fresh)
    assert abs(area(replace(capture, view=replace(capture.view, public=public))) - 0.5) < 0.22


def test_each_step_is_matched_under_its_own_weights() -> None:
    """With the first step's weights alone, later batches are no longer recognised exactly."""
    capture = captured()
    stale = replace(capture, view=replace(capture.view, weights=capture.view.weights[:1]))
    assert 0.5 < area(stale) < 0.95


def test_silent_rows_match_nobody() -> None:
    capture = captured()
    silent = replace(capture.view.messages[0], payload=torch.zeros(BATCH, 16))
    messages = (silent, *capture.view.messages[1:])
    guess = ActivationMatch().run(replace(capture.view, messages=messages), torch.Generator())
    assert int((guess.scores > guess.threshold).sum()) == (STEPS - 1) * BATCH


def test_refuses_a_view_that_lacks_a_need() -> None:
    view = captured().view
    blind = replace(view, weights=())
    deaf = replace(view, messages=())
    asked_nothing = replace(view, public=Public())
    for lacking in (blind, deaf, asked_nothing):
        with pytest.raises(NotApplicable):
            ActivationMatch().run(lacking, torch.Generator())
