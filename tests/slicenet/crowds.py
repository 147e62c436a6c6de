"""Small crowds, trained and recorded, that the tests look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from privbench.contract import Message, Net, Samples, Seat, Spec, batches, child_rng
from privbench.data.shares import dealt
from privbench.regimes.base import Trained
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.training import started, total_steps
from privbench.slicenet.router import CrowdRouter
from privbench.wire.tap import Tap
from privbench.wire.wire import Wire

EVERYTHING = Seat("wire", "network", everything=True)


class Keeps(Tap):
    """Keeps every message of some kinds, in memory."""

    def __init__(self, *kinds: str):
        self.kinds = kinds
        self.messages: list[Message] = []
        self.owners: dict[int, torch.Tensor] = {}
        self.states: dict[int, dict[str, torch.Tensor]] = {}
        self.topology = None

    def open(self, topology, router):
        self.topology = topology

    def begin(self, step, owners):
        self.owners[step] = owners.clone()

    def keeps(self, step, kind):
        return not self.kinds or kind in self.kinds

    def take(self, message):
        if self.keeps(message.step, message.kind):
            self.messages.append(message)

    def hold(self, step, state):
        self.states[step] = {name: tensor.clone() for name, tensor in state.items()}

    def close(self):
        pass

    def cut(self, seat=EVERYTHING):
        """What a seat saw."""
        router = CrowdRouter(self.topology)
        for message in self.messages:
            yield from router.cut(message, self.owners[message.step], seat)


class Deals:
    """A population without a truth."""

    def __init__(self, samples: Samples):
        self.train = samples
        self.shares = ()
        self.noted: dict[int, torch.Tensor] = {}

    def note(self, step, positions):
        self.noted[step] = positions

    def share(self, owners, rng, holds=None, alpha=None):
        self.shares = dealt(self.train.y, len(self.train), holds or [True] * owners, alpha, rng)
        return self.shares


@dataclass
class Told:
    """A crowd that was trained, and all about it."""

    regime: SliceNet
    net: Net
    population: Deals
    wire: Wire
    tap: Keeps | None
    trained: Trained
    seed: int

    @property
    def rng(self):
        return torch.Generator().manual_seed(self.seed)


def records(count, shape, classes, seed, dtype=torch.float64):
    """Random labelled records."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(count, *shape, generator=rng, dtype=dtype)
    return Samples(x, torch.randint(0, classes, (count,), generator=rng))


def trained(regime, spec, shape, *, count=60, classes=4, seed=1, taps=True, **wire) -> Told:
    """Train a crowd on random records."""
    tap = Keeps() if taps else None
    net = Net(spec)
    population = Deals(records(count, shape, classes, seed, wire.pop("dtype", torch.float64)))
    line = Wire((tap,) if tap else (), **wire)
    done = regime.train(net, population, line, torch.Generator().manual_seed(seed), "cpu")
    return Told(regime, net, population, line, tap, done, seed)


def mlp(*widths) -> Spec:
    return Spec("privbench.models.mlp.Mlp", {"widths": list(widths)})


def walk(twin, told: Told):
    """Train a twin on the batches of a crowd that was trained."""
    recipe = told.regime.recipe(told.net, len(told.population.train))
    order = batches(recipe, len(told.population.train), child_rng(told.rng, "batches"))
    owner_of = torch.zeros(len(told.population.train), dtype=torch.int64)
    for number, share in enumerate(s for s in told.population.shares if len(s)):
        owner_of[share] = number
    for step in range(total_steps(recipe, len(told.population.train))):
        positions = next(order)
        batch = told.population.train[positions]
        twin.step(step, batch.x, batch.y, owner_of[positions])


def start(told: Told):
    """Initial weights."""
    recipe = told.regime.recipe(told.net, len(told.population.train))
    net = started(recipe, told.rng).net
    return {name: t.to(told.population.train.x.dtype) for name, t in net.weights.items()}
