"""Model inversion: the inputs found are what the model takes for each class, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from attacks.blind import BlindInversion, BlindMembership
from attacks.inversion.mi_face import MiFace
from privbench.contract import Net, Public, Samples, Seat, Spec, Topology, View
from privbench.errors import NotApplicable, UsageError

NET = Net(Spec("torch.nn.Linear", {"in_features": 12, "out_features": 4}))


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def _view(strength: float = 20.0) -> View:
    """A model that takes three inputs of twelve for each of four classes."""
    weight = torch.full((4, 12), -strength)
    for label in range(4):
        weight[label, 3 * label : 3 * label + 3] = strength
    net = replace(NET, weights={"weight": weight, "bias": torch.zeros(4)})
    samples = Samples(torch.rand(30, 12, generator=_rng()), torch.arange(30) % 4)
    seat = Seat("anyone", "outsider", grants=frozenset({"released_weights"}))
    public = Public(net=net, auxiliary=samples, candidates=samples[:20])
    topology = Topology("centralized", ("trainer",), (), NET, 1, 1)
    return View(seat, topology, torch.empty(0, 2, dtype=torch.int64), public=public)


@pytest.mark.parametrize("start", ["mean", "grey"])
def test_finds_what_the_model_takes_for_each_class(start: str) -> None:
    view = _view(strength=1.0)
    guess = MiFace(start=start).run(view, _rng())
    assert guess.x.shape == (4, 12)
    assert view.public.net is not None
    said = view.public.net.module()(guess.x).softmax(dim=1).diagonal()
    assert bool((said > 0.99).all())
    mine = guess.x.view(4, 4, 3).mean(dim=2).diagonal()
    assert float(mine.min()) > 0.7


def test_climbs_also_where_the_confidence_in_a_class_is_almost_nothing() -> None:
    """Confidence itself has no slope there: exp(-200) is 0 in float32."""
    view = _view(strength=40.0)
    assert view.public.net is not None and view.public.auxiliary is not None
    start = view.public.auxiliary.x.mean(dim=0, keepdim=True).clone()
    start[:, :3] = 1.0
    pulled = replace(
        view, public=replace(view.public, auxiliary=Samples(start, torch.zeros(1).long()))
    )
    with torch.no_grad():
        assert float(view.public.net.module()(start).softmax(dim=1).min()) == 0
    guess = MiFace().run(pulled, _rng())
    assert torch.equal(view.public.net.module()(guess.x).argmax(dim=1), torch.arange(4))


@pytest.mark.parametrize("rate", [0.1, 1e4])
def test_keeps_the_best_input_even_where_steps_are_far_too_long(rate: float) -> None:
    net = Net(Spec("privbench.models.mlp.Mlp", {"widths": (12, 8, 4)})).initialised(_rng())
    view = _view()
    view = replace(view, public=replace(view.public, net=net))
    assert view.public.auxiliary is not None
    mean = view.public.auxiliary.x.mean(dim=0)
    best = []
    for steps in (1, 2, 5, 20, 80):
        x = MiFace(steps=steps, rate=rate).run(view, _rng()).x
        with torch.no_grad():
            best.append(net.module()(x).softmax(dim=1).diagonal())
        if steps == 1:
            assert torch.equal(x, mean.expand(4, 12))
    assert all(bool((b >= a).all()) for a, b in pairwise(best))


def test_draws_nothing_and_refuses_what_it_cannot_do() -> None:
    view, before = _view(), torch.random.get_rng_state()
    assert torch.equal(MiFace().run(view, _rng()).x, MiFace().run(view, torch.Generator()).x)
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(NotApplicable, match="threat=released"):
        MiFace().run(replace(view, public=replace(view.public, net=None)), _rng())
    with pytest.raises(UsageError, match="expected mean or grey"):
        MiFace(start="black").run(view, _rng())


def test_blind_guesses_look_at_nothing() -> None:
    view = _view()
    other = replace(view, public=replace(view.public, net=None))
    scores = BlindMembership().run(view, _rng()).scores
    assert scores.shape == (20,)
    assert torch.equal(scores, BlindMembership().run(other, _rng()).scores)
    inverted = BlindInversion().run(view, _rng()).x
    assert view.public.auxiliary is not None
    assert torch.equal(inverted, view.public.auxiliary.x.mean(dim=0).expand(4, 12))
