"""Attacks that learn or search: networks trained on pairs, and several epochs inverted together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from attacks.reconstruction.activation_inversion import ActivationInversion
from attacks.reconstruction.gradient_to_input import GradientToInput
from attacks.reconstruction.inverse_network import InverseNetwork
from attacks.reconstruction.multi_snapshot import MultiSnapshot
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
    Spec,
    Topology,
    View,
    Weights,
    traced,
)
from privbench.errors import NotApplicable, UsageError
from privbench.toolkit.prefix import truncated
from privbench.toolkit.slopes import slopes_at

CONV = {
    "conv": ["torch.nn.Conv2d", {"in_channels": 1, "out_channels": 4, "kernel_size": 3}],
    "relu": ["torch.nn.ReLU", {}],
    "flat": ["torch.nn.Flatten", {}],
    "out": ["torch.nn.Linear", {"in_features": 144, "out_features": 10}],
}
NETS = {
    "mlp": (Net(Spec("privbench.models.mlp.Mlp", {"widths": (64, 96, 10)})), "relu0", (96,)),
    "conv": (Net(Spec("privbench.models.described.sequential", {"parts": CONV})), "relu", (4, 6, 6)),
}  # fmt: skip
GRANTS = frozenset({"auxiliary", "prefix_weights"})
QUICK = InverseNetwork(steps=20, width=8)


def _digits() -> Samples:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.as_tensor(digits.images, dtype=torch.float32)[order, None] / 16
    return Samples(x, torch.as_tensor(digits.target)[order])


DIGITS = _digits()
AUXILIARY, PRIVATE, OTHERS, MINE = (
    DIGITS[:300], DIGITS[400:416], DIGITS[500:516], DIGITS[600:900],
)  # fmt: skip


def _state(net: Net, step: int) -> dict[str, Tensor]:
    """Fresh weights at every step: what one step tells is no help at another."""
    return dict(net.initialised(torch.Generator().manual_seed(step)).weights or {})


def _sent(kind: str, step: int, x: Tensor) -> Tensor:
    net, cut, _ = NETS[kind]
    module = net.module()
    module.load_state_dict(_state(net, step))
    with torch.no_grad():
        return truncated(traced(module), cut)(x)


def _view(
    kind: str = "mlp",
    samples: Samples = PRIVATE,
    units: tuple[int, ...] | None = None,
    epochs: int = 1,
    steps: int = 2,
    pairs: str = "prefix",
) -> View:
    """A host fed by the first layer: each sample crosses once an epoch, in another order each time."""
    net, cut, shape = NETS[kind]
    parameters = tuple(name for name in _state(net, 0) if name.startswith(("linear0", "conv")))
    layer = Layer("first", cut, "stem", shape[0], shape, parameters)
    messages, weights, size = [], [], len(samples) // steps
    for step in range(epochs * steps):
        payload = _sent(kind, step, samples.x[_batch(step, steps, len(samples))])
        payload = payload if units is None else payload[:, list(units)]
        messages.append(
            Message(step, "train", "device-0", "device-1", "activation", "first", units, payload,
                    torch.arange(size))
        )  # fmt: skip
        tensors = {name: _state(net, step)[name] for name in parameters}
        weights.append(Weights(step, "first", None, tensors))
    parties = ("device-0", "device-1")
    last = torch.arange((epochs - 1) * steps, epochs * steps)
    return View(
        Seat("device-1", "peer", ("device-1",), grants=GRANTS, pairs=pairs),
        Topology("slicenet", parties, parties, net, epochs * steps, steps, (layer,)),
        torch.cartesian_prod(last, torch.arange(size)),
        tuple(messages),
        tuple(weights),
        public=Public(auxiliary=AUXILIARY),
    )


def _batch(step: int, steps: int, count: int) -> Tensor:
    """Which samples are in a step's batch."""
    epoch = torch.Generator().manual_seed(step // steps)
    return torch.randperm(count, generator=epoch).chunk(steps)[step % steps]


def _truth(view: View, samples: Samples = PRIVATE) -> Tensor:
    steps = view.topology.steps_per_epoch
    found = [
        samples.x[_batch(s, steps, len(samples))] for s in view.victims[:, 0].unique().tolist()
    ]
    return torch.cat(found)


def _psnr(x: Tensor, true: Tensor) -> float:
    errors = (x - true).square().flatten(1).mean(dim=1).clamp(min=1e-10)
    return float(-10 * errors.log10().mean())


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(4)


MEAN = _psnr(AUXILIARY.x.mean(dim=0).expand_as(PRIVATE.x), PRIVATE.x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETS)
def test_one_network_decodes_steps_of_other_weights(kind: str) -> None:
    view = _view(kind)
    guess = QUICK.run(view, _rng())
    assert guess.x.shape == PRIVATE.x.shape
    alone = [
        QUICK.run(replace(view, victims=view.victims[view.victims[:, 0] == s]), _rng()).x
        for s in (0, 1)
    ]
    assert min(_psnr(guess.x, _truth(view)), _psnr(torch.cat(alone), _truth(view))) > MEAN + 1
    others = QUICK.run(_view(kind, OTHERS), _rng())
    assert _psnr(others.x, _truth(view)) < MEAN


def test_some_channels_tell_less() -> None:
    view = _view("conv", steps=1)
    some = QUICK.run(_view("conv", units=(2,), steps=1), _rng())
    whole = QUICK.run(view, _rng())
    assert MEAN < _psnr(some.x, _truth(view)) < _psnr(whole.x, _truth(view))


def test_an_oracles_answers_are_as_good_as_weights() -> None:
    view = _view("mlp", steps=1)
    asked = Pairs(0, "first", AUXILIARY.x, _sent("mlp", 0, AUXILIARY.x))
    told = _view("mlp", steps=1, pairs="query")
    guess = QUICK.run(replace(told, weights=(), pairs=(asked,)), _rng())
    torch.testing.assert_close(guess.x, QUICK.run(view, _rng()).x, atol=1e-3, rtol=0)


def _owning(mine: Samples) -> View:
    """It saw its own samples cross, as rows after those of the victims."""
    view = _view("mlp", steps=1, pairs="own")
    rows = torch.arange(16, 16 + len(mine))
    own = Message(0, "train", "device-1", "device-0", "activation", "first", None,
                  _sent("mlp", 0, mine.x), rows)  # fmt: skip
    known = Own(torch.stack([torch.zeros_like(rows), rows], dim=1), mine)
    return replace(view, messages=(*view.messages, own), own=known, weights=())


def test_own_samples_that_crossed_serve_as_pairs() -> None:
    view = _owning(MINE)
    assert _psnr(QUICK.run(view, _rng()).x, _truth(view)) > MEAN + 2


def test_pairs_too_few_to_learn_from_are_no_worse_than_their_mean() -> None:
    view = _owning(MINE[:4])
    guess = QUICK.run(view, _rng()).x
    assert (
        _psnr(guess, _truth(view))
        > _psnr(MINE.x[:4].mean(dim=0).expand_as(guess), _truth(view)) - 1
    )
    with pytest.raises(NotApplicable, match="fewer than two of them"):
        QUICK.run(_owning(MINE[:1]), _rng())


def test_rows_of_several_epochs_inverted_together_beat_one_alone() -> None:
    view = _view("mlp", units=tuple(range(0, 96, 2)), epochs=3)
    one = ActivationInversion(steps=100).run(view, _rng())
    apart = MultiSnapshot(steps=100, first=60, ratio=0.0).run(view, _rng())
    together = MultiSnapshot(steps=100, first=60).run(view, _rng())
    truth = _truth(view)
    assert abs(_psnr(apart.x, truth) - _psnr(one.x, truth)) < 0.5
    assert _psnr(together.x, truth) > _psnr(one.x, truth) + 3


def test_one_epoch_alone_is_inverted_row_by_row() -> None:
    view = _view("conv")
    single = ActivationInversion(steps=30).run(view, _rng())
    together = MultiSnapshot(steps=30).run(view, _rng())
    torch.testing.assert_close(together.x, single.x, atol=0.02, rtol=0)


def test_refuses_a_ratio_out_of_range() -> None:
    with pytest.raises(UsageError, match=r"attack\.ratio=2; expected a number from 0 to 1"):
        MultiSnapshot(ratio=2)


@pytest.mark.parametrize("attack", [QUICK, MultiSnapshot(steps=10, first=10)])
def test_victims_that_were_not_seen_get_the_mean_and_the_rest_stays_as_it_was(
    attack: Attack,
) -> None:
    view = _view(epochs=2)
    before, payloads = torch.random.get_rng_state(), [m.payload.clone() for m in view.messages]
    asked = replace(view, victims=torch.cat([view.victims, torch.tensor([[1, 40]])]))
    guess = attack.run(asked, _rng())
    assert torch.equal(guess.x[-1], AUXILIARY.x.mean(dim=0))
    assert torch.equal(attack.run(asked, _rng()).x, guess.x)
    assert all(torch.equal(a, m.payload) for a, m in zip(payloads, view.messages, strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


def _with_gradients(known: int | None, parts: tuple[float, ...] = (0.3, 0.7)) -> View:
    """The same host, told by two others what flows back through the cut.

    Args:
        known: seed of the weights that it takes for the network's; 0 = the right ones.
        parts: what the two tell, of the whole.
    """
    view = _view("mlp", steps=1)
    net = NETS["mlp"][0]
    module = net.module()
    module.load_state_dict(_state(net, 0))
    payload = slopes_at(module, view.topology.layers[0], PRIVATE[_batch(0, 1, 16)]) / 16
    messages = [
        Message(0, "train", f"device-{2 + n}", "device-1", "gradient", "first", None,
                payload * part, torch.arange(16))
        for n, part in enumerate(parts)
    ]  # fmt: skip
    weights = () if known is None else (Weights(0, "", None, _state(net, known)),)
    return replace(view, messages=tuple(messages), weights=weights)


GRADIENTS = GradientToInput(steps=100)


def _class_means() -> Tensor:
    """Of each victim of the one step, its class among the auxiliary records."""
    y = PRIVATE[_batch(0, 1, 16)].y
    assert y is not None
    return torch.stack([AUXILIARY.x[label == AUXILIARY.y].mean(dim=0) for label in y])


def test_a_gradient_tells_a_little_more_than_the_label_to_whoever_knows_the_network() -> None:
    view = _with_gradients(0)
    truth, guess = _truth(view), GRADIENTS.run(view, _rng()).x
    assert _psnr(guess, truth) > _psnr(_class_means(), truth) + 0.3 > MEAN + 0.3


@pytest.mark.parametrize(("known", "parts"), [(1, (0.3, 0.7)), (0, (0.3, 0.2))])
def test_what_the_network_does_not_explain_is_left_at_a_labels_mean(
    known: int, parts: tuple[float, ...]
) -> None:
    guess = GRADIENTS.run(_with_gradients(known, parts), _rng()).x
    means = torch.stack([AUXILIARY.x[label == AUXILIARY.y].mean(dim=0) for label in range(10)])
    assert bool((guess[:, None] == means).flatten(2).all(dim=2).any(dim=1).all())


def test_a_seat_that_knows_no_whole_network_is_told_when_it_would() -> None:
    with pytest.raises(NotApplicable, match="weights are public"):
        GRADIENTS.run(_with_gradients(None), _rng())
