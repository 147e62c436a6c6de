"""A bound on the norm of the whole gradient, in a crowd where nobody holds all of it."""

from __future__ import annotations

import pytest
import torch
from crowds import mlp, start, trained, walk
from device_nets import NETS
from devices import furthest, named, regime, walked
from twin import Twin

from privbench.contract import Message
from privbench.errors import UsageError
from privbench.regimes.centralized import Centralized
from privbench.regimes.split import Split
from privbench.regimes.training import train
from privbench.slicenet.faults import Faults
from privbench.toolkit.stacked import stackable

CLIP = 0.2  # below the norm of every step's gradient here, so that it binds


def _same_messages(slow, fast):
    assert slow.keys() == fast.keys()
    for key, message in slow.items():
        torch.testing.assert_close(fast[key].payload, message.payload, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("tiling", "optimizer"),
    [
        ("output", "sgd"),
        pytest.param("input", "sgd", marks=pytest.mark.slow),
        pytest.param("output", "momentum", marks=pytest.mark.slow),
        ("input", "momentum"),
    ],
)
def test_the_twin_the_crowd_and_one_machine_clip_alike(tiling, optimizer):
    told = trained(regime(4, tiling, optimizer, clip=CLIP), mlp(16, 12, 8, 4), (1, 4, 4))
    assert told.trained.topology.steps == 20
    central = train(told.trained.recipe, told.population.train, told.rng).weights
    assert furthest(told.trained.net.weights, central) < 1e-10
    free = trained(regime(4, tiling, optimizer), mlp(16, 12, 8, 4), (1, 4, 4), taps=False)
    assert furthest(free.trained.net.weights, central) > 1e-3  # it did bind
    recipe = told.trained.recipe
    twin = Twin(told.trained.topology, start(told), recipe.optimizer, clip=CLIP)
    walk(twin, told)
    assert furthest(twin.collect(), central) < 1e-10
    _same_messages(named(twin.mail.sent), named(told.tap.cut()))


@pytest.mark.parametrize("net", ["residual", pytest.param("alexnet", marks=pytest.mark.slow)])
def test_devices_alone_clip_alike_and_every_byte_is_counted(net):
    told = trained(regime(5, "grid", epochs=2, clip=CLIP), *NETS[net])
    central = train(told.trained.recipe, told.population.train, told.rng).weights
    program, heard = walked(told)
    assert furthest(told.trained.net.weights, central) < 1e-10
    state = program.releaser.state | {name: n for (_, name), n in program.counters().items()}
    assert furthest(state, central) < 1e-10
    _same_messages(named(heard.messages), named(told.tap.cut()))
    norms = [m for m in heard.messages if m.kind == "norm"]
    steps, hosts = told.trained.topology.steps, told.trained.topology.hosts()
    assert len(norms) == 2 * steps * len(hosts)
    silent = trained(regime(5, "grid", epochs=2, clip=CLIP), *NETS[net], taps=False)
    assert silent.wire.bytes == told.wire.bytes
    assert told.wire.bytes["norm"] == sum(m.nbytes for m in norms)


class _Lies:
    """A host that says that its gradient is large."""

    kinds = frozenset({"norm"})

    def open(self, topology, router, rng):
        pass

    def begin(self, owners):
        pass

    def act(self, message: Message, rng: torch.Generator) -> Message:
        if message.kind != "norm" or message.receiver != "coordinator":
            return message
        changed = {**vars(message), "payload": torch.full_like(message.payload, 1e6)}
        return Message(**changed)


def test_everyone_goes_on_with_the_factor_that_was_sent():
    told = trained(regime(3, epochs=1, clip=CLIP), mlp(16, 12, 8, 4), (1, 4, 4), actor=_Lies())
    factors = [m for m in told.tap.cut() if m.kind == "norm" and m.sender == "coordinator"]
    assert max(float(m.payload) for m in factors) < 1e-3
    begun = start(told)
    moved = {k: t - begun[k] for k, t in told.trained.net.weights.items()}
    assert max(float(t.abs().max()) for t in moved.values()) < 1e-3


class _Doubles:
    """A defense of stem gradients that remembers what it let go."""

    kinds = ("stem_gradient",)
    double = False

    def __init__(self):
        self.sent = []

    def send(self, message: Message, rng: torch.Generator) -> Message:
        changed = Message(**{**vars(message), "payload": 2 * message.payload})
        self.sent.append(changed.payload.clone())
        return changed


def test_clipping_leaves_what_was_recorded_alone(monkeypatch):
    """One owner alone: what it sent is the whole sum, which everyone then scales."""
    monkeypatch.setattr("privbench.regimes.slicenet.defenses_of", lambda wire: ())
    defense = _Doubles()
    told = trained(
        regime(1, epochs=1, clip=CLIP), mlp(16, 12, 8, 4), (1, 4, 4), defenses=(defense,)
    )
    kept = [m.payload for m in told.tap.cut() if m.kind == "stem_gradient"]
    assert len(kept) == len(defense.sent) > 0
    for one, other in zip(kept, defense.sent, strict=True):
        assert torch.equal(one, other)


def test_what_cannot_clip_says_so():
    for settings, named_ in (
        ({"replicas": 2}, "replicas"),
        ({"faults": Faults(loss_rate=0.1)}, "faults"),
        ({"clip": 0.0}, "above 0"),
    ):
        with pytest.raises(UsageError, match=named_):
            trained(regime(4, epochs=1, **{"clip": CLIP, **settings}), *NETS["mlp"])
    with pytest.raises(UsageError, match="client and server"):
        trained(Split(clip=CLIP), *NETS["mlp"])


def test_shadows_of_a_clipped_recipe_are_clipped():
    told = trained(regime(3, epochs=1, clip=CLIP), *NETS["mlp"])
    recipe = told.trained.recipe
    assert recipe.clip == CLIP
    assert not stackable(recipe, Centralized.trainer, told.population.train.x.shape[1:])
