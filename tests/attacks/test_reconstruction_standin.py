"""Attacks that build a stand-in: tied to what the seat knows, blind where nothing is to be seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from attacks.reconstruction.pcat import Pcat
from attacks.reconstruction.query_free import QueryFree
from attacks.reconstruction.sdar import Sdar
from attacks.reconstruction.unsplit import Unsplit
from privbench.contract import (
    Layer,
    Message,
    Net,
    Public,
    Recipe,
    Samples,
    Seat,
    Slice,
    Spec,
    Topology,
    View,
    Weights,
)
from privbench.errors import NotApplicable
from privbench.toolkit.standin import StandIn, labels_of, like_batches, some_of, stand_in_of
from privbench.toolkit.traffic import seen_of_victims

ROWS, STEPS = 8, 2
GRANTS = frozenset({"auxiliary", "own_weights", "recipe"})


def small(size: int = 8) -> nn.Module:
    """One convolution of the client's, one linear layer of the server's."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * size * size, 10)
    )


def flat() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


CONV = Net(Spec(f"{__name__}.small"))
FLAT = Net(Spec(f"{__name__}.flat"))
SOME = {
    "query_free": QueryFree(training=4, steps=4),
    "unsplit": Unsplit(rounds=2, input_steps=3, model_steps=3),
    "pcat": Pcat(training=4, decoding=4, width=4),
    "sdar": Sdar(training=4, width=4),
}


def _digits() -> Samples:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.as_tensor(digits.images, dtype=torch.float32)[order, None] / 16
    return Samples(x, torch.as_tensor(digits.target)[order])


DIGITS = _digits()
AUXILIARY, PRIVATE = DIGITS[:200], DIGITS[400 : 400 + ROWS * STEPS]


def _topology(net: Net) -> Topology:
    if net is CONV:
        seen, name, shape, after, cut, out = "0", "_1", (4, 8, 8), "3", "_3", 10
    else:
        seen, name, shape, after, cut, out = "0", "_1", (5,), "2", "_2", 2
    layers = (
        Layer(seen, name, "stem", shape[0], shape, (f"{seen}.weight", f"{seen}.bias")),
        Layer(after, cut, "body", out, (out,), (f"{after}.weight", f"{after}.bias"), (seen,)),
    )
    slices = (Slice("split_server", after, tuple(range(out)), whole=True),)
    return Topology("split", ("client", "split_server"), ("client",), net, 2, 2, layers, slices)


def _state(net: Net, step: int) -> dict[str, Tensor]:
    return dict(net.initialised(torch.Generator().manual_seed(step)).weights or {})


def _view(
    net: Net = CONV,
    private: Samples = PRIVATE,
    auxiliary: Samples | None = AUXILIARY,
    labels: bool = True,
    dtype: torch.dtype = torch.float32,
) -> View:
    """A split server that saw two steps, each under weights of its own."""
    topology, rows, messages, weights = _topology(net), len(private) // STEPS, [], []
    after = topology.layers[1]
    for step in range(STEPS):
        state, batch = _state(net, step), private[step * rows : (step + 1) * rows]
        module = Net(net.spec, state).module()
        with torch.no_grad():
            sent = {"activation": module[:2](batch.x).to(dtype), "labels": batch.y}
        messages += [
            Message(step, "train", "client", "split_server", kind, topology.layers[0].name, None,
                    payload, torch.arange(rows))
            for kind, payload in sent.items() if labels or kind == "activation"
        ]  # fmt: skip
        held = {name: state[name].to(dtype) for name in after.parameters}
        weights.append(Weights(step, after.name, None, held))
    victims = torch.cartesian_prod(torch.arange(STEPS), torch.arange(rows))
    recipe = Recipe(net, Spec("torch.optim.SGD", {"lr": 0.1}), epochs=1, batch=rows)
    seat = Seat("split_server", "infrastructure", ("split_server",), grants=GRANTS)
    public = Public(auxiliary=auxiliary, recipe=recipe)
    return View(seat, topology, victims, tuple(messages), tuple(weights), public=public)


def _rng(seed: int = 4) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _stand_in(view: View, step: int = 1) -> StandIn:
    return stand_in_of(view, seen_of_victims(view, ("activation",))[0], step, _rng())


def test_what_the_seat_holds_is_held_and_exchanged_and_the_rest_is_free() -> None:
    view = _view()
    stand_in = _stand_in(view)
    assert set(stand_in.free) == {"0.weight", "0.bias"}
    for step in (1, 0):
        stand_in.at(step)
        state = stand_in.state()
        assert torch.equal(state["3.weight"], _state(CONV, step)["3.weight"])
        assert not torch.equal(state["0.weight"], _state(CONV, step)["0.weight"])
    module = Net(CONV.spec, {name: t.detach() for name, t in stand_in.state().items()}).module()
    answer = stand_in(AUXILIARY.x[:3])
    torch.testing.assert_close(answer.output, module(AUXILIARY.x[:3]))
    torch.testing.assert_close(answer.activation, module[:2](AUXILIARY.x[:3]))
    torch.testing.assert_close(stand_in.activation(AUXILIARY.x[:3]), answer.activation)


def test_rows_and_columns_that_are_held_stay_and_their_neighbours_learn() -> None:
    view = _view()
    truth = _state(CONV, 1)["3.weight"]
    part = Weights(1, "3", (2, 5), {"3.weight": truth[[2, 5]][:, [0, 7]]}, columns=(0, 7))
    stand_in = _stand_in(replace(view, weights=(part,)))
    assert "3.weight" in stand_in.free
    adam = torch.optim.Adam(stand_in.free.values(), lr=0.1)
    stand_in(AUXILIARY.x[:4]).output.square().sum().backward()
    adam.step()
    now, drawn = stand_in.state()["3.weight"], _stand_in(replace(view, weights=(part,)))
    assert torch.equal(now[[2, 5]][:, [0, 7]], truth[[2, 5]][:, [0, 7]])
    assert not torch.equal(now[0], drawn.state()["3.weight"][0])


def test_public_initial_weights_are_a_start_that_may_be_left() -> None:
    view = _view()
    initial = Weights(0, "", None, _state(CONV, 0))
    stand_in = _stand_in(replace(view, weights=(initial, *view.weights[1:])))
    assert torch.equal(stand_in.state()["0.weight"], _state(CONV, 0)["0.weight"])
    assert "0.weight" in stand_in.free
    assert not _stand_in(replace(view, weights=(initial, *view.weights[1:])), step=0).free


def test_labels_are_found_by_row_and_batches_follow_them() -> None:
    view = _view()
    rows = torch.tensor([[1, 3], [0, 0], [1, 40]])
    assert labels_of(view, rows).tolist() == [int(PRIVATE.y[ROWS + 3]), int(PRIVATE.y[0]), -1]
    wanted = torch.tensor([3, 3, 7, 99])
    chosen = like_batches(AUXILIARY.y, wanted, _rng())
    assert AUXILIARY.y[chosen][:3].tolist() == [3, 3, 7]
    few = some_of(AUXILIARY, 2, _rng())
    assert torch.bincount(few.y).tolist() == [2] * 10


@pytest.mark.parametrize("name", SOME)
def test_bad_input_is_answered(name: str) -> None:
    """One sample a step, constant images, half precision, no labels, records that are no images."""
    attack = SOME[name]
    table = Samples(torch.rand(40, 6, generator=_rng()), torch.arange(40) % 2)
    grey = Samples(torch.full_like(PRIVATE.x[:2], 0.5), PRIVATE.y[:2])
    for view in (
        _view(private=PRIVATE[:2], dtype=torch.float16),
        _view(private=grey, auxiliary=Samples(AUXILIARY.x * 0 + 0.5, AUXILIARY.y), labels=False),
        _view(FLAT, private=table[:4], auxiliary=table[4:]),
    ):
        before = torch.get_rng_state()
        guess, again = attack.run(view, _rng()), attack.run(view, _rng())
        assert torch.equal(guess.x, again.x)
        assert guess.x.shape[1:] == view.public.auxiliary.x.shape[1:]
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", SOME)
def test_victims_that_were_not_seen_are_guessed_blind(name: str) -> None:
    view = _view()
    view = replace(view, victims=torch.tensor([[0, 1], [1, 40]]))
    guess = SOME[name].run(view, _rng()).x
    blind = torch.full((1, 8, 8), 0.5) if name == "unsplit" else AUXILIARY.x.mean(dim=0)
    torch.testing.assert_close(guess[1], blind)
    assert not torch.allclose(guess[0], blind)
    nothing = replace(view, messages=())
    torch.testing.assert_close(SOME[name].run(nothing, _rng()).x, blind.expand(2, 1, 8, 8))


@pytest.mark.parametrize("name", SOME)
def test_what_is_lacking_is_named(name: str) -> None:
    view = _view()
    with pytest.raises(NotApplicable, match=r"data\.split=thirds"):
        SOME[name].run(replace(view, public=Public()), _rng())
    if name != "unsplit":
        with pytest.raises(NotApplicable, match="threat=split_server"):
            SOME[name].run(replace(view, weights=()), _rng())
        bare = Public(auxiliary=Samples(AUXILIARY.x))
        with pytest.raises(NotApplicable, match="labelled"):
            SOME[name].run(replace(view, public=bare), _rng())


def test_unsplit_explains_what_it_saw_and_uses_no_auxiliary_value() -> None:
    attack = Unsplit(rounds=6, input_steps=10, model_steps=10, input_rate=0.05)
    view = _view()
    x, clone = attack.search(
        view,
        seen_of_victims(view, ("activation",))[0],
        torch.cat([m.payload for m in view.select("activation")]),
        PRIVATE.x.shape[1:],
        _rng(),
    )
    sent = torch.cat([m.payload for m in view.select("activation")])
    start = Unsplit(rounds=1, input_steps=1, model_steps=1)
    left = clone.settled().activation(x) - sent
    assert float(left.square().mean()) < 0.5 * float(sent.square().mean())
    other = replace(view, public=Public(auxiliary=Samples(torch.rand_like(AUXILIARY.x))))
    assert torch.equal(start.run(view, _rng()).x, start.run(other, _rng()).x)
