"""Attacks on updates: exact where they should be, no better than the mean where nothing is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from federated import server
from sklearn.datasets import load_digits
from torch import Tensor

from attacks.reconstruction.analytic import Analytic
from attacks.reconstruction.cocktail_party import CocktailParty
from attacks.reconstruction.dlg import Dlg
from attacks.reconstruction.generative_prior import GenerativePrior
from attacks.reconstruction.grad_inversion import GradInversion
from attacks.reconstruction.idlg import Idlg
from attacks.reconstruction.stem_differencing import StemDifferencing
from privbench.contract import (
    Attack,
    Knowledge,
    Message,
    Net,
    Own,
    ReconstructionGuess,
    Samples,
    Seat,
    Spec,
    View,
    child_rng,
)
from privbench.errors import NotApplicable
from privbench.toolkit.labels import label_counts
from privbench.toolkit.updates import observed


def _digits() -> Samples:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(1))
    x = torch.as_tensor(digits.images, dtype=torch.float32)[order, None] / 16
    return Samples(x, torch.as_tensor(digits.target)[order])


DIGITS = _digits()
AUXILIARY, PRIVATE, OTHERS = DIGITS[:200], DIGITS[300:304], DIGITS[400:404]
MLP = Spec("privbench.models.mlp.Mlp", {"widths": (64, 100, 10)})
ZHU = Spec("privbench.models.lenet_zhu.LeNetZhu", {"channels": 1, "size": 8})


def _net(spec: Spec, seed: int = 0) -> Net:
    return Net(spec).initialised(_rng(seed))


def _rng(seed: int = 4) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _psnr(x: Tensor, true: Tensor) -> float:
    errors = (x - true).square().flatten(1).mean(dim=1).clamp(min=1e-12)
    return float(-10 * errors.log10().mean())


def _found(attack: Attack, view: View) -> ReconstructionGuess:
    fitted = tuple(
        fit.fit(Knowledge(view.public, view.budget), child_rng(_rng(), "fit"))
        for fit in attack.fits()
    )
    guess = attack.run(replace(view, fitted=fitted), _rng())
    assert isinstance(guess, ReconstructionGuess)
    return guess


def _matched(guess: ReconstructionGuess, true: Tensor) -> float:
    """Mean over true inputs of the PSNR of the nearest guess."""
    errors = (guess.x[None] - true[:, None]).square().flatten(2).mean(dim=2).amin(dim=1)
    return float(-10 * errors.clamp(min=1e-12).log10().mean())


MEAN = _psnr(AUXILIARY.x.mean(dim=0).expand_as(PRIVATE.x), PRIVATE.x)


@pytest.mark.parametrize(
    "attack, spec, least",
    [
        (Analytic(), MLP, 100.0),
        (CocktailParty(), MLP, 15.0),
        (Idlg(steps=30), MLP, 40.0),
        pytest.param(Dlg(steps=150), ZHU, 14.0, marks=pytest.mark.slow),
        (GradInversion(steps=80, seeds=2), MLP, 20.0),
        pytest.param(
            GenerativePrior(steps=40, refine=100, train_steps=60), MLP, 18.0, marks=pytest.mark.slow
        ),
    ],
)
def test_one_sample_is_rebuilt_and_another_is_not(attack: Attack, spec: Spec, least: float) -> None:
    guess = _found(attack, server(_net(spec), PRIVATE, AUXILIARY))
    assert _psnr(guess.x, PRIVATE.x[guess.rows[:, 1]]) > least
    strange = _found(attack, server(_net(spec), OTHERS, AUXILIARY))
    assert _psnr(strange.x, PRIVATE.x[strange.rows[:, 1]]) < MEAN


def test_one_linear_layer_with_a_bias_gives_one_sample_away_to_float_precision() -> None:
    """Golden: exact."""
    linear = Spec("privbench.models.mlp.Mlp", {"widths": (64, 10)})
    guess = _found(Analytic(), server(_net(linear), PRIVATE, AUXILIARY))
    torch.testing.assert_close(guess.x, PRIVATE.x[guess.rows[:, 1]], atol=1e-6, rtol=1e-5)


def test_the_label_of_one_sample_is_always_read_off() -> None:
    """Golden: 100 %."""
    for spec in (MLP, ZHU):
        net = _net(spec)
        samples = DIGITS[500:600]
        for known in observed(server(net, samples, AUXILIARY)):
            counts = label_counts(known, net.module(), AUXILIARY, 1)
            assert counts is not None and samples.y is not None
            assert int(counts.argmax()) == int(samples.y[known.rows])


def test_of_a_batch_what_some_neuron_saw_alone_is_exact() -> None:
    wide = Spec("privbench.models.mlp.Mlp", {"widths": (64, 600, 10)})
    state = dict(_net(wide).weights or {})
    # neurons that few samples reach, as training often leaves them
    state["linear0.bias"] = state["linear0.bias"] - 0.75 * state["linear0.weight"].abs().mean() * 8
    guess = _found(Analytic(), server(Net(wide, state), PRIVATE, AUXILIARY, each=4))
    errors = (guess.x[None] - PRIVATE.x[:, None]).square().flatten(2).mean(dim=2).amin(dim=1)
    assert int((errors < 1e-8).sum()) >= 2
    assert guess.groups is not None and len(guess.groups.unique()) == 1


def test_independent_inputs_of_a_batch_are_told_apart() -> None:
    rng = _rng(8)
    sparse = torch.rand(4, 1, 20, 20, generator=rng) * (
        torch.rand(4, 1, 20, 20, generator=rng) < 0.15
    )
    wide = Spec("privbench.models.mlp.Mlp", {"widths": (400, 60, 10)})
    samples = Samples(sparse, torch.arange(4))
    auxiliary = Samples(sparse.mean(dim=0, keepdim=True), torch.zeros(1, dtype=torch.int64))
    guess = _found(CocktailParty(), server(_net(wide), samples, auxiliary, each=4))
    guessed, true = guess.x.flatten(1), sparse.flatten(1)
    alike = torch.corrcoef(torch.cat([guessed, true]))[:4, 4:].abs().amax(dim=0)
    assert float(alike.min()) > 0.9


def test_more_inputs_than_neurons_are_guessed_at_the_mean() -> None:
    narrow = Spec("privbench.models.mlp.Mlp", {"widths": (64, 2, 10)})
    guess = _found(CocktailParty(), server(_net(narrow), PRIVATE, AUXILIARY, each=4))
    mean = AUXILIARY.x.mean(dim=0)
    assert sum(torch.allclose(x, mean) for x in guess.x) >= 2


@pytest.mark.parametrize("attack", [Analytic(), CocktailParty()])
def test_a_network_that_begins_with_a_convolution_is_refused(attack: Attack) -> None:
    with pytest.raises(NotApplicable, match=r"attack=gradient_inversion"):
        attack.run(server(_net(ZHU), PRIVATE, AUXILIARY), _rng())


@pytest.mark.parametrize(
    "attack", [Analytic(), CocktailParty(), Idlg(steps=3), GradInversion(steps=3, seeds=2)]
)
def test_half_precision_tables_and_several_steps_do_what_they_can(attack: Attack) -> None:
    view = server(_net(MLP), Samples(PRIVATE.x.flatten(1), PRIVATE.y), AUXILIARY)
    auxiliary = Samples(AUXILIARY.x.flatten(1), AUXILIARY.y)
    later = [replace(m, step=1) for m in view.messages]
    halved = tuple(replace(m, payload=m.payload.half()) for m in (*view.messages, *later))
    view = replace(view, messages=halved, public=replace(view.public, auxiliary=auxiliary),
                   victims=torch.cat([view.victims, view.victims + torch.tensor([1, 0])]))  # fmt: skip
    guess = _found(attack, view)
    assert guess.x.shape == (8, 64) and torch.equal(guess.rows, view.victims)
    if isinstance(attack, Analytic):
        assert _psnr(guess.x[4:], PRIVATE.x.flatten(1)) > 40


def test_an_update_in_which_nothing_was_active_is_guessed_at_the_mean() -> None:
    view = server(_net(MLP), PRIVATE, AUXILIARY)
    silent = tuple(replace(m, payload=torch.zeros_like(m.payload)) for m in view.messages)
    for attack in (Analytic(), CocktailParty(), Idlg(steps=3), Dlg(steps=3)):
        guess = _found(attack, replace(view, messages=silent))
        assert bool(torch.isfinite(guess.x).all())
    nobody = _found(Analytic(), replace(view, victims=torch.empty(0, 2, dtype=torch.int64)))
    assert len(nobody.x) == 0


def _owner(spec: Spec, grants: bool) -> View:
    """One of two owners sees two broadcasts, each of the whole network where ``grants``, else of its stem."""
    net = _net(spec)
    base = server(net, PRIVATE[:2], AUXILIARY, each=2)
    state = dict(net.weights or {})
    stem = [name for name in state if name.startswith(("linear0", "conv0"))]
    after = {m.layer: state[m.layer] + m.payload for m in base.messages}
    messages = []
    for step, now in enumerate((state, after)):
        for name in state:
            kind = "stem_weights" if name in stem else "tail_weights"
            if grants or name in stem:
                at = torch.arange(2)
                messages.append(Message(step, "train", "coordinator", "client-0", kind, name, None,
                                        now[name], at))  # fmt: skip
    return replace(
        base,
        seat=Seat("client-0", "peer", ("client-0",)),
        messages=tuple(messages),
        weights=(),
        own=Own(torch.tensor([[0, 0]]), PRIVATE[:1]),
        victims=torch.tensor([[0, 1]]),
        public=replace(base.public, net=None),
    )


def test_two_broadcasts_tell_an_owner_the_other_ones_inputs() -> None:
    known = _found(StemDifferencing(), _owner(MLP, grants=True))
    assert known.rows.tolist() == [[0, 1]]
    assert _psnr(known.x, PRIVATE.x[1:2]) > 60
    convolved = _found(StemDifferencing(steps=60), _owner(ZHU, grants=True))
    assert _psnr(convolved.x, PRIVATE.x[1:2]) > MEAN + 3


def test_an_owner_that_lacks_what_it_needs_is_told_so() -> None:
    with pytest.raises(NotApplicable, match=r"threat\.stale_weights=true"):
        StemDifferencing().run(_owner(ZHU, grants=False), _rng())
    view = _owner(MLP, grants=True)
    once = replace(view, messages=tuple(m for m in view.messages if m.step == 0))
    with pytest.raises(NotApplicable, match=r"capture\.every=1"):
        StemDifferencing().run(once, _rng())


@pytest.mark.parametrize("attack", [Idlg(steps=15), GradInversion(steps=15, seeds=2)])
def test_seat_by_seat_equals_all_at_once(attack: Attack) -> None:
    views = [server(_net(ZHU), samples, AUXILIARY) for samples in (PRIVATE, OTHERS)]
    views = [replace(v, seat=replace(v.seat, name=f"seat {i}")) for i, v in enumerate(views)]
    together = attack.run_all(views, _rng())
    for one, view in zip(together, views, strict=True):
        alone = attack.run(view, child_rng(_rng(), view.seat.name))
        assert isinstance(one, ReconstructionGuess) and isinstance(alone, ReconstructionGuess)
        torch.testing.assert_close(one.x, alone.x, atol=1e-4, rtol=1e-4)
