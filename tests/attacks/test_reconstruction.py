"""Attacks on activations: exact where they can be, blind where they must be, and adaptive to noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from attacks.blind import BlindReconstruction
from attacks.reconstruction.activation_inversion import ActivationInversion
from attacks.reconstruction.read_out import ReadOut
from attacks.reconstruction.ridge_decoder import RidgeDecoder
from defenses.gaussian_noise import GaussianNoise
from privbench.contract import (
    Attack,
    Layer,
    Message,
    Net,
    Own,
    Pairs,
    Public,
    Samples,
    Seat,
    Slice,
    Spec,
    Topology,
    View,
    Weights,
    spec_of,
)
from privbench.errors import NotApplicable

STEM, BODY = "linear0", "linear1"
ROWS, STEPS = 12, 2
GRANTS = frozenset({"auxiliary", "prefix_weights"})


def _digits() -> Samples:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.as_tensor(digits.images, dtype=torch.float32)[order, None] / 16
    return Samples(x, torch.as_tensor(digits.target)[order])


DIGITS = _digits()
AUXILIARY, PRIVATE, OTHERS = DIGITS[:300], DIGITS[400:424], DIGITS[500:524]


def _net(hidden: int = 96) -> Net:
    """Random weights: an activation is as telling as after training."""
    return Net(Spec("privbench.models.mlp.Mlp", {"widths": (64, hidden, 16, 10)}))


def _topology(net: Net, cut: str = "relu0") -> Topology:
    hidden = net.spec.kwargs["widths"][1]
    layers = (
        Layer(STEM, cut, "stem", hidden, (hidden,), ("linear0.weight", "linear0.bias")),
        Layer(BODY, "relu1", "body", 16, (16,), ("linear1.weight", "linear1.bias"), (STEM,)),
        Layer("linear2", "linear2", "tail", 10, (10,), ("linear2.weight", "linear2.bias"), (BODY,)),
    )
    parties = ("device-0", "device-1", "coordinator")
    slices = (Slice("device-1", BODY, tuple(range(16))),)
    return Topology("slicenet", parties, parties[:2], net, STEPS, STEPS, layers, slices)


def _state(net: Net, step: int) -> dict[str, Tensor]:
    return dict(net.initialised(torch.Generator().manual_seed(step)).weights or {})


def _sent(topology: Topology, step: int, x: Tensor) -> Tensor:
    """What leaves the stem, computed layer by layer."""
    state = _state(topology.net, step)
    linear = x.flatten(1) @ state["linear0.weight"].T + state["linear0.bias"]
    return linear.relu() if topology.layers[0].cut == "relu0" else linear


def _view(
    topology: Topology,
    samples: Samples = PRIVATE,
    units: tuple[int, ...] | None = None,
    pairs: str = "prefix",
    noise: float = 0.0,
) -> View:
    """A host fed by the stem: rows 0 to 11 of two steps, other people's from device-0."""
    rng = torch.Generator().manual_seed(9)
    messages, weights = [], []
    for step in range(STEPS):
        state = _state(topology.net, step)
        weights.append(
            Weights(step, STEM, None, {n: state[n] for n in topology.layers[0].parameters})
        )
        payload = _sent(topology, step, samples.x[step * ROWS : (step + 1) * ROWS])
        payload = payload if units is None else payload[:, list(units)]
        rows = torch.arange(ROWS)
        message = Message(
            step, "train", "device-0", "device-1", "activation", STEM, units, payload, rows
        )
        messages.append(GaussianNoise(std=noise).send(message, rng))
    victims = torch.cartesian_prod(torch.arange(STEPS), torch.arange(ROWS))
    seat = Seat("device-1", "peer", ("device-1",), grants=GRANTS, pairs=pairs)
    defenses = (spec_of(GaussianNoise(std=noise)),) if noise else ()
    return View(
        seat,
        replace(topology, defenses=defenses),
        victims,
        tuple(messages),
        tuple(weights),
        public=Public(auxiliary=AUXILIARY),
    )


def _psnr(x: Tensor, true: Tensor = PRIVATE.x) -> float:
    errors = (x - true).square().flatten(1).mean(dim=1).clamp(min=1e-10)
    return float(-10 * errors.log10().mean())


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(4)


MEAN = _psnr(AUXILIARY.x.mean(dim=0).expand_as(PRIVATE.x))
BOTH = (RidgeDecoder(), ActivationInversion(steps=100))


def test_ridge_is_exact_where_the_prefix_is_linear_and_invertible() -> None:
    guess = RidgeDecoder().run(_view(_topology(_net(), cut="linear0")), _rng())
    assert _psnr(guess.x) > 40


def test_both_find_the_images_behind_a_relu() -> None:
    view = _view(_topology(_net()))
    assert _psnr(RidgeDecoder().run(view, _rng()).x) > MEAN + 6
    assert _psnr(ActivationInversion().run(view, _rng()).x) > MEAN + 12


@pytest.mark.parametrize("attack", BOTH)
def test_a_transcript_of_other_samples_is_worth_no_more_than_the_mean(attack: Attack) -> None:
    assert _psnr(attack.run(_view(_topology(_net()), OTHERS), _rng()).x) < MEAN


@pytest.mark.parametrize("attack", BOTH)
def test_each_step_is_decoded_with_its_own_weights(attack: Attack) -> None:
    view = _view(_topology(_net()))
    swapped = tuple(replace(w, step=1 - w.step) for w in view.weights)
    right = _psnr(attack.run(view, _rng()).x)
    assert _psnr(attack.run(replace(view, weights=swapped), _rng()).x) < right - 6


@pytest.mark.parametrize("attack", BOTH)
def test_some_units_tell_less_than_all_but_something(attack: Attack) -> None:
    topology = _topology(_net())
    some = _psnr(attack.run(_view(topology, units=tuple(range(0, 96, 4))), _rng()).x)
    assert MEAN + 0.5 < some < _psnr(attack.run(_view(topology), _rng()).x)


@pytest.mark.parametrize("attack", [*BOTH, BlindReconstruction()])
def test_seat_by_seat_equals_all_at_once_and_again(attack: Attack) -> None:
    topology = _topology(_net())
    views = [
        _view(topology),
        _view(topology, units=tuple(range(48))),
        _view(topology, OTHERS, noise=0.1),
        replace(_view(topology), victims=_view(topology).victims[3:20]),
    ]
    views = [replace(v, seat=replace(v.seat, name=f"seat {i}")) for i, v in enumerate(views)]
    together, again = attack.run_all(views, _rng()), attack.run_all(views, _rng())
    alone = Attack.run_all(attack, views, _rng())
    for one, two, three in zip(together, again, alone, strict=True):
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.x, three.x)


@pytest.mark.parametrize("attack", BOTH)
def test_the_view_and_the_global_generator_stay_as_they_were(attack: Attack) -> None:
    view, before = _view(_topology(_net())), torch.random.get_rng_state()
    payloads = [message.payload.clone() for message in view.messages]
    attack.run(view, _rng())
    assert all(torch.equal(a, m.payload) for a, m in zip(payloads, view.messages, strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_decoder_fitted_on_noised_pairs_beats_one_that_ignores_the_noise() -> None:
    view = _view(_topology(_net()), noise=0.3)
    unaware = replace(view, topology=replace(view.topology, defenses=()))
    adaptive = _psnr(RidgeDecoder().run(view, _rng()).x)
    assert adaptive > MEAN
    assert adaptive > _psnr(RidgeDecoder().run(unaware, _rng()).x) + 1
    assert adaptive < _psnr(RidgeDecoder().run(_view(_topology(_net())), _rng()).x)


def test_own_samples_that_crossed_serve_as_pairs_and_their_units_do_not_mislead() -> None:
    topology, units = _topology(_net(hidden=24)), tuple(range(0, 24, 2))
    view = _view(topology, units=units, pairs="own")
    mine = DIGITS[600:760]
    rows = torch.arange(ROWS, ROWS + 80)
    own = [
        Message(s, "train", "device-1", "device-0", "activation", STEM, None,
                _sent(topology, s, mine.x[s * 80 : (s + 1) * 80]), rows)
        for s in range(STEPS)
    ]  # fmt: skip
    samples = Own(torch.cartesian_prod(torch.arange(STEPS), rows), mine)
    view = replace(view, messages=(*own, *view.messages), own=samples, weights=())
    guess = RidgeDecoder().run(view, _rng())
    assert _psnr(guess.x) > MEAN
    shuffled = replace(samples, samples=samples.samples[torch.arange(159, -1, -1)])
    assert _psnr(RidgeDecoder().run(replace(view, own=shuffled), _rng()).x) < _psnr(guess.x) - 0.3


def test_an_oracles_answers_serve_as_pairs() -> None:
    topology = _topology(_net())
    asked = AUXILIARY.x
    pairs = tuple(Pairs(s, STEM, asked, _sent(topology, s, asked)) for s in range(STEPS))
    view = replace(_view(topology, pairs="query"), weights=(), pairs=pairs)
    expected = RidgeDecoder().run(_view(topology), _rng()).x
    torch.testing.assert_close(RidgeDecoder().run(view, _rng()).x, expected, atol=1e-3, rtol=0)


def test_partial_sums_of_several_hosts_are_added_up_for_own_pairs() -> None:
    topology = _topology(_net(), cut="linear0")
    view = _view(topology, pairs="own")
    mine = DIGITS[600:900]
    messages, size = [], ROWS + 150
    for step in range(STEPS):
        x = torch.cat([PRIVATE.x[step * ROWS : (step + 1) * ROWS], mine.x[step * 150 :][:150]])
        whole = _sent(topology, 0, x)
        part = torch.rand(whole.shape, generator=_rng())
        for sender, payload in (("device-2", part), ("device-3", whole - part)):
            messages.append(
                Message(step, "train", sender, "device-1", "partial_sum", STEM, None, payload,
                        torch.arange(size))
            )  # fmt: skip
    rows = torch.cartesian_prod(torch.arange(STEPS), torch.arange(ROWS, size))
    view = replace(view, messages=tuple(messages), own=Own(rows, mine), weights=())
    assert _psnr(RidgeDecoder().run(view, _rng()).x) > 40


@pytest.mark.parametrize("attack", BOTH)
def test_refuses_a_seat_without_the_weights_on_the_way(attack: Attack) -> None:
    with pytest.raises(NotApplicable, match="does not know 'linear0"):
        attack.run(replace(_view(_topology(_net())), weights=()), _rng())


def test_victims_that_were_not_seen_get_the_mean() -> None:
    view = _view(_topology(_net()))
    victims = torch.cat([view.victims, torch.tensor([[1, 40]])])
    for attack in BOTH:
        guess = attack.run(replace(view, victims=victims), _rng())
        assert torch.equal(guess.x[-1], AUXILIARY.x.mean(dim=0))


def test_inputs_that_are_no_images_are_inverted_without_a_prior() -> None:
    topology = _topology(_net())
    view = _view(topology)
    flat = replace(view, public=Public(auxiliary=Samples(AUXILIARY.x.flatten(1), AUXILIARY.y)))
    guess = ActivationInversion().run(flat, _rng())
    assert guess.x.shape == (24, 64)
    assert _psnr(guess.x, PRIVATE.x.flatten(1)) > MEAN + 20


def test_read_out_copies_what_was_sent() -> None:
    messages = tuple(
        Message(s, "train", "owner", "trainer", "samples", "", None,
                PRIVATE.x[s * ROWS :][:ROWS].flip(0), torch.arange(ROWS).flip(0))
        for s in (1, 0)
    )  # fmt: skip
    victims = torch.tensor([[1, 3], [0, 7]])
    view = View(Seat("trainer", "infrastructure"), _topology(_net()), victims, messages)
    assert torch.equal(ReadOut().run(view, _rng()).x, PRIVATE.x[[ROWS + 3, 7]])
    with pytest.raises(NotApplicable, match="regime=centralized"):
        ReadOut().run(replace(view, messages=()), _rng())
