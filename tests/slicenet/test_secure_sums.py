"""Secure aggregation: the coordinator hears sums of stem and tail gradients, links nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from crowds import EVERYTHING, mlp, start, trained, walk
from devices import furthest, named, regime
from twin import Twin

from privbench.contract import OWNERS, MessageDefense, Own, Seat, View, Weights
from privbench.errors import UsageError
from privbench.regimes.training import train
from privbench.slicenet.engines import Distributed
from privbench.slicenet.faults import Faults
from privbench.toolkit.updates import observed
from privbench.views import unprotected

COORDINATOR = Seat("coordinator", "infrastructure", ("coordinator",))
OWNED = ("stem_gradient", "tail_gradient")
SHAPE = (mlp(16, 12, 8, 4), (1, 4, 4))


def secure(devices=4, **settings):
    """A crowd whose every step has two owners at least."""
    return regime(devices, aggregation="secure", **{"min_owners": 2, **settings})


def _owned(told, seat):
    return [message for message in told.tap.cut(seat) if message.kind in OWNED]


@pytest.mark.parametrize(("optimizer", "clip"), [("sgd", None), ("adam", 0.2)])
def test_the_twin_that_masks_sends_the_same_sums_and_as_many_bytes(optimizer, clip):
    told = trained(secure(optimizer=optimizer, clip=clip, epochs=2), *SHAPE)
    recipe = told.trained.recipe
    twin = Twin(told.trained.topology, start(told), recipe.optimizer, clip=clip)
    walk(twin, told)
    central = train(recipe, told.population.train, told.rng).weights
    assert furthest(twin.collect(), central) < 1e-9
    assert furthest(told.trained.net.weights, central) < 1e-12
    slow = named(m for m in twin.mail.sent if m.sender == OWNERS)
    fast = named(_owned(told, COORDINATOR))
    assert len(slow) == 4 * told.trained.topology.steps
    assert slow.keys() == fast.keys()
    for key, message in slow.items():
        torch.testing.assert_close(fast[key].payload, message.payload, rtol=1e-8, atol=1e-11)
    plain = trained(regime(4, optimizer=optimizer, clip=clip, epochs=2), *SHAPE)
    silent = trained(secure(optimizer=optimizer, clip=clip, epochs=2), *SHAPE, taps=False)
    assert told.wire.bytes == plain.wire.bytes == silent.wire.bytes
    for kind in OWNED:
        hidden = sum(m.nbytes for m in twin.mail.hidden if m.kind == kind)
        assert told.wire.bytes[kind] == hidden


def test_taps_and_owners_see_no_gradient_of_stem_and_tail():
    told = trained(secure(epochs=1), *SHAPE)
    link = Seat("link", "network", links=(("coordinator", "device-0"),))
    for seat in (EVERYTHING, link, Seat("device-0", "peer", ("device-0",))):
        assert not _owned(told, seat)
    assert _owned(trained(regime(4, epochs=1), *SHAPE), link)


@dataclass(frozen=True, kw_only=True)
class _Ones(MessageDefense):
    """Every owner's gradient is one."""

    kinds: tuple[str, ...] = OWNED

    def send(self, message, rng):
        assert message.sender != OWNERS
        return replace(message, payload=torch.ones_like(message.payload))


def test_defenses_change_each_owners_gradient_before_it_is_added():
    told = trained(secure(epochs=1), *SHAPE, defenses=(_Ones(),))
    for message in _owned(told, COORDINATOR):
        owners = len(told.tap.owners[message.step].unique())
        assert bool((message.payload == owners).all())


def test_a_step_with_too_few_owners_is_refused_before_training():
    with pytest.raises(UsageError, match=r"step \d+ has rows of \d owners? .*regime\.batch"):
        trained(secure(devices=6, min_owners=6), *SHAPE)
    for settings, about in (
        ({"min_owners": 1}, "at least 2"),
        ({"replicas": 2}, "replicas"),
        ({"faults": Faults(loss_rate=0.1)}, "faults"),
        ({"engine": Distributed()}, "engine"),
    ):
        with pytest.raises(UsageError, match=about):
            trained(secure(**settings), *SHAPE)
    with pytest.raises(UsageError, match="plain or secure"):
        trained(regime(4, aggregation="sum"), *SHAPE)
    assert secure().equivalent() is None


def _view(told, *parties, step=0):
    """What a seat of these parties holds of one step, with its own samples and all weights."""
    topology = told.trained.topology
    own = [number for number, owner in enumerate(topology.owners) if owner in parties]
    rows = torch.isin(told.tap.owners[step], torch.tensor(own)).nonzero().flatten()
    samples = told.population.train[told.population.noted[step][rows]]
    named_rows = torch.stack([torch.full_like(rows, step), rows], dim=1)
    seat = Seat("some", "peer", parties)
    weights = Weights(step, "", None, told.tap.states[step])
    messages = [m for m in told.tap.cut(seat) if m.step == step and m.kind in OWNED]
    return View(
        seat=seat,
        topology=topology,
        victims=named_rows[:0],
        messages=tuple(messages),
        weights=(weights,),
        own=Own(named_rows, samples) if own else None,
    )


def _watched():
    """In single precision, as views are."""
    return trained(secure(epochs=1), *SHAPE, dtype=torch.float32)


@pytest.mark.parametrize("mine", [(), ("device-0",)])
def test_a_sum_is_the_mean_gradient_of_everybody_elses_rows(mine):
    told = _watched()
    (found,) = observed(_view(told, "coordinator", *mine))
    others = told.tap.owners[0] != 0 if mine else torch.ones(12, dtype=torch.bool)
    assert found.rows.tolist() == others.nonzero().flatten().tolist()
    samples = told.population.train[told.population.noted[0][found.rows]]
    module = told.net.module()
    module.load_state_dict(start(told))
    torch.nn.functional.cross_entropy(module(samples.x), samples.y).backward()
    true = dict(module.named_parameters())
    assert len(found.gradient) == 4
    for name, gradient in found.gradient.items():
        torch.testing.assert_close(gradient, true[name].grad, rtol=1e-3, atol=1e-6)


def test_a_seat_that_leaves_too_few_owners_outside_is_told_of():
    told = _watched()
    owners = told.tap.owners
    present = [told.trained.topology.owners[k] for k in owners[0].unique().tolist()]
    assert unprotected([_view(told, "coordinator")], owners) == ()
    (said,) = unprotected([_view(told, "coordinator", *present[1:])], owners)
    assert said.startswith("unprotected: 1 of 1 steps for some")
    bare = trained(regime(4, epochs=1), *SHAPE)
    assert unprotected([_view(bare, "coordinator", *present[1:])], bare.tap.owners) == ()


def test_rows_computed_a_few_at_a_time_add_up_to_the_same_sums():
    whole = named(_owned(trained(secure(epochs=1), *SHAPE), COORDINATOR))
    parts = named(_owned(trained(secure(epochs=1, micro_batch=5), *SHAPE), COORDINATOR))
    assert whole.keys() == parts.keys()
    for key, message in whole.items():
        torch.testing.assert_close(parts[key].payload, message.payload, rtol=1e-8, atol=1e-11)


class _Listens:
    """An active seat that notes who sends what it is shown."""

    kinds = frozenset(OWNED)

    def __init__(self, *parties):
        self.parties, self.shown = parties, set()

    def open(self, topology, router, rng):
        pass

    def begin(self, owners):
        pass

    def sends(self, party):
        return party in self.parties

    def act(self, message, rng):
        if message.kind in self.kinds:
            self.shown.add(message.sender)
        return message


def test_an_active_seat_is_shown_its_own_gradients_and_sums():
    heard = _Listens("device-0")
    trained(secure(epochs=1), *SHAPE, actor=heard)
    assert heard.shown == {"device-0", OWNERS}
