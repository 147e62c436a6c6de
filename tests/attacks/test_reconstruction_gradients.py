"""Gradient inversion: from each of its four sources, and never better than it should be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from attacks.reconstruction.gradient_inversion import GradientInversion
from privbench.contract import (
    Attack,
    Federation,
    Message,
    Net,
    Own,
    Public,
    Recipe,
    Samples,
    Seat,
    Spec,
    Topology,
    View,
    Weights,
)
from privbench.errors import NotApplicable
from privbench.toolkit.labels import label_counts
from privbench.toolkit.updates import Observed, observed

RATE = 0.3
NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": (64, 40, 10)}))
STEM, TAIL = ("linear0.weight", "linear0.bias"), ("linear1.weight", "linear1.bias")
QUICK = GradientInversion(steps=150)


def _digits() -> Samples:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(1))
    x = torch.as_tensor(digits.images, dtype=torch.float32)[order, None] / 16
    return Samples(x, torch.as_tensor(digits.target)[order])


DIGITS = _digits()
AUXILIARY, PRIVATE, OTHERS = DIGITS[:200], DIGITS[300:308], DIGITS[400:408]


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def _state(seed: int = 0) -> dict[str, Tensor]:
    return dict(NET.initialised(torch.Generator().manual_seed(seed)).weights or {})


def _gradient(samples: Samples, state: dict[str, Tensor]) -> dict[str, Tensor]:
    module = Net(NET.spec, state).module()
    loss = torch.nn.functional.cross_entropy(module(samples.x), samples.y)
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def _psnr(x: Tensor, true: Tensor) -> float:
    errors = (x - true).square().flatten(1).mean(dim=1).clamp(min=1e-10)
    return float(-10 * errors.log10().mean())


MEAN = _psnr(AUXILIARY.x.mean(dim=0).expand_as(PRIVATE.x), PRIVATE.x)


def _bare(party: str, regime: str, clients: int) -> View:
    """A seat that saw nothing yet."""
    names = tuple(f"client-{k}" for k in range(clients))
    topology = Topology(regime, ("server", *names), names, NET, 8, 4)
    federation = Federation(clients, 8, 1) if regime == "fedavg" else None
    recipe = Recipe(NET, Spec("torch.optim.SGD", {"lr": RATE}), 1, 8, federation=federation)
    public = Public(auxiliary=AUXILIARY, recipe=recipe)
    seat = Seat(party, "peer", (party,), grants=frozenset({"model_weights"}))
    return View(seat, topology, torch.empty(0, 2, dtype=torch.int64), public=public)


def _updates(samples: Samples, rows: int, step: int = 0, first: int = 0) -> list[Message]:
    """Each client's negative scaled gradient of its rows."""
    state, messages = _state(), []
    for client in range(len(samples) // rows):
        at = torch.arange(client * rows, (client + 1) * rows)
        for name, slope in _gradient(samples[at], state).items():
            messages.append(
                Message(step, "train", f"client-{first + client}", "server", "update", name, None,
                        -RATE * slope, at)
            )  # fmt: skip
    return messages


def _server(samples: Samples = PRIVATE, rows: int = 1) -> View:
    view = _bare("server", "fedavg", len(samples) // rows)
    victims = torch.stack(
        [torch.zeros(len(samples), dtype=torch.int64), torch.arange(len(samples))], 1
    )
    weights = (Weights(0, "", None, _state()),)
    return replace(view, victims=victims, messages=tuple(_updates(samples, rows)), weights=weights)


def _broadcast(kind: str, step: int, state: dict[str, Tensor], to: str, rows: int) -> list[Message]:
    return [
        Message(step, "train", "server", to, kind, name, None, tensor, torch.arange(rows))
        for name, tensor in state.items()
    ]


def _moved(state: dict[str, Tensor], slope: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor - RATE * slope[name] for name, tensor in state.items()}


def test_one_sample_an_update_gives_the_sample_away() -> None:
    guess = GradientInversion().run(_server(), _rng())
    assert guess.groups is not None and len(guess.groups.unique()) == len(PRIVATE)
    assert _psnr(guess.x, PRIVATE.x[guess.rows[:, 1]]) > 30


def test_updates_of_other_samples_are_worth_no_more_than_the_mean() -> None:
    guess = QUICK.run(_server(OTHERS), _rng())
    assert _psnr(guess.x, PRIVATE.x[guess.rows[:, 1]]) < MEAN


def test_a_small_batch_is_rebuilt_in_unknown_order() -> None:
    guess = GradientInversion().run(_server(rows=2), _rng())
    assert guess.groups is not None
    assert torch.equal(guess.groups, torch.arange(4).repeat_interleave(2))
    ways = [_psnr(guess.x[i : i + 1], PRIVATE.x[j : j + 1])
            for i in range(8) for j in (i, i ^ 1)]  # fmt: skip
    best = torch.tensor(ways).view(8, 2).amax(dim=1)
    assert float(best.mean()) > MEAN + 6


def test_more_rows_than_images_are_stood_for_by_victims_first() -> None:
    view = _server(rows=8)
    view = replace(view, victims=view.victims[[2, 6]])
    guess = replace(QUICK, images=3, steps=2).run(view, _rng())
    assert len(guess.x) == 3
    assert {2, 6} <= set(guess.rows[:, 1].tolist())


def test_only_updates_that_hold_a_victim_are_inverted() -> None:
    view = _server()
    guess = replace(QUICK, steps=2).run(replace(view, victims=view.victims[[5]]), _rng())
    assert guess.rows.tolist() == [[0, 5]]
    nobody = replace(QUICK, steps=2).run(replace(view, victims=view.victims[:0]), _rng())
    assert len(nobody.x) == 0


def test_seat_by_seat_equals_all_at_once_and_again() -> None:
    views = [_server(), _server(OTHERS), _server(rows=2), _server(rows=4)]
    views = [replace(v, seat=replace(v.seat, name=f"seat {i}")) for i, v in enumerate(views)]
    attack = replace(QUICK, steps=40)
    together, again = attack.run_all(views, _rng()), attack.run_all(views, _rng())
    alone = Attack.run_all(attack, views, _rng())
    for one, two, three in zip(together, again, alone, strict=True):
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.x, three.x)


def test_the_view_and_the_global_generator_stay_as_they_were() -> None:
    view, before = _server(), torch.random.get_rng_state()
    payloads = [message.payload.clone() for message in view.messages]
    replace(QUICK, steps=3).run(view, _rng())
    assert all(torch.equal(a, m.payload) for a, m in zip(payloads, view.messages, strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_client_takes_its_own_update_off_the_aggregate() -> None:
    """Two clients with one sample each: what is left is the other's gradient alone."""
    samples = PRIVATE[:2]
    state, updates = _state(), _updates(samples, 1)
    step = {n: sum(m.payload / 2 for m in updates if m.layer == n) for n in state}
    after = {name: tensor + step[name] for name, tensor in state.items()}
    messages = [
        *_broadcast("global_weights", 0, state, "client-0", 2),
        *[m for m in updates if m.sender == "client-0"],
        *_broadcast("global_weights", 1, after, "client-0", 2),
    ]
    view = replace(
        _bare("client-0", "fedavg", 2),
        victims=torch.tensor([[0, 1]]),
        messages=tuple(messages),
        own=Own(torch.tensor([[0, 0]]), samples[:1]),
    )
    (found,) = observed(view)
    assert found.rows.tolist() == [1] and found.mean
    for name, slope in _gradient(samples[1:], state).items():
        torch.testing.assert_close(found.gradient[name], slope, atol=1e-5, rtol=1e-4)
    guess = GradientInversion().run(view, _rng())
    assert _psnr(guess.x, samples.x[1:]) > 25


def test_an_owner_takes_its_own_rows_off_what_broadcasts_tell() -> None:
    samples, state = PRIVATE[:4], _state()
    after = _moved(state, _gradient(samples, state))
    messages = []
    for step, now in enumerate((state, after)):
        messages += _broadcast("stem_weights", step, {n: now[n] for n in STEM}, "client-0", 4)
        messages += _broadcast("tail_weights", step, {n: now[n] for n in TAIL}, "client-0", 4)
    view = replace(
        _bare("client-0", "slicenet", 2),
        victims=torch.tensor([[0, 2]]),
        messages=tuple(messages),
        weights=(Weights(0, "", None, state),),
        own=Own(torch.tensor([[0, 1], [0, 0]]), samples[[1, 0]]),
    )
    (found,) = observed(view)
    assert found.rows.tolist() == [2, 3]
    for name, slope in _gradient(samples[2:], state).items():
        torch.testing.assert_close(found.gradient[name], slope, atol=1e-5, rtol=1e-4)


def _coordinator() -> View:
    """Two owners with one and three rows; the coordinator sees each one's share of the mean."""
    state, shares = _state(), (torch.tensor([3]), torch.tensor([0, 1, 2]))
    messages = []
    for owner, at in enumerate(shares):
        for name, slope in _gradient(PRIVATE[at], state).items():
            kind = "stem_gradient" if name in STEM else "tail_gradient"
            share = slope * (len(at) / 4)
            messages.append(
                Message(0, "train", f"client-{owner}", "server", kind, name, None, share, at)
            )
    messages += _broadcast("stem_weights", 0, {n: state[n] for n in STEM}, "client-0", 4)
    view = _bare("server", "slicenet", 2)
    victims = torch.stack([torch.zeros(4, dtype=torch.int64), torch.arange(4)], dim=1)
    return replace(view, victims=victims, messages=tuple(messages))


def test_a_coordinator_needs_the_weights_that_it_does_not_broadcast() -> None:
    view = _coordinator()
    with pytest.raises(NotApplicable, match=r"threat\.stale_weights=true"):
        QUICK.run(view, _rng())
    released = replace(view.public, net=Net(NET.spec, _state(seed=7)))
    one, three = observed(replace(view, public=released))
    assert (one.rows.tolist(), three.rows.tolist()) == ([3], [0, 1, 2])
    state = _state()
    for name, slope in _gradient(PRIVATE[:3], state).items():
        torch.testing.assert_close(three.gradient[name], slope, atol=1e-5, rtol=1e-4)
    assert torch.equal(three.weights["linear0.weight"], state["linear0.weight"])
    assert torch.equal(three.weights["linear1.weight"], _state(seed=7)["linear1.weight"])


def test_labels_are_read_off_the_last_bias() -> None:
    state = _state()
    module = Net(NET.spec, state).module()
    for count in (1, 8):
        known = Observed(0, "", torch.arange(count), _gradient(PRIVATE[:count], state), state, True)
        counts = label_counts(known, module, AUXILIARY, count)
        assert counts is not None and int(counts.sum()) == count
        true = torch.bincount(PRIVATE.y[:count], minlength=10)  # type: ignore[arg-type]
        assert int((counts - true).abs().sum()) <= (0 if count == 1 else 2)
    blind = Observed(0, "", torch.arange(8), {n: state[n] for n in STEM}, state, True)
    assert label_counts(blind, module, AUXILIARY, 8) is None


def test_unknown_labels_are_found_along_with_the_image() -> None:
    """Without the tail's gradient labels start unknown; the image is still found."""
    view = _server()
    view = replace(view, messages=tuple(m for m in view.messages if m.layer in STEM))
    guess = GradientInversion().run(view, _rng())
    assert _psnr(guess.x, PRIVATE.x[guess.rows[:, 1]]) > 25
