"""A crowd trained by devices alone, in one process, to be compared with others."""

from __future__ import annotations

import torch
from crowds import Told, start

from privbench.contract import batches, child_rng
from privbench.regimes.slicenet import SliceNet
from privbench.slicenet.briefing import Private, Public
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.device import Holdings
from privbench.slicenet.program import Program
from privbench.slicenet.trace import trace
from privbench.slicenet.transport import Mail

OPTIMIZERS = {
    "sgd": ("torch.optim.SGD", {}, 0.1),
    "momentum": ("torch.optim.SGD", {"momentum": 0.9, "weight_decay": 1e-3}, 0.03),
    "adam": ("torch.optim.Adam", {}, 1e-3),
}
ENCODED = 2  # steps whose messages go through bytes; later ones are copied, which is quicker


class Heard:
    """Keeps every message and every weight."""

    def __init__(self):
        self.messages = []
        self.held = {}

    def take(self, number, message):
        assert number == len(self.messages)
        self.messages.append(message)

    def wants(self, step):
        return True

    def hold(self, step, parts):
        self.held[step] = parts


def regime(
    devices, tiling="output", optimizer="sgd", epochs=4, granularity=2, stem=1, **settings
) -> SliceNet:
    """A crowd of equal devices, with batches of 12."""
    target, arguments, lr = OPTIMIZERS[optimizer]
    return SliceNet(
        crowd=Uniform(devices=devices),
        tiling=tiling,
        granularity=granularity,
        optimizer=target,
        optimizer_args=arguments,
        lr=lr,
        epochs=epochs,
        batch=12,
        stem=stem,
        **settings,
    )


def told_to(told: Told) -> tuple[Public, Private, torch.Tensor]:
    """What one process is told in which all parties live, and the number of each record's owner."""
    population, topology, state = told.population, told.trained.topology, start(told)
    module = told.net.module().to(population.train.x.dtype)
    module.load_state_dict(state)
    sample = population.train.x[0]
    graph = trace(module, sample.shape, told.regime.stem, told.regime.labels)
    noise = child_rng(told.rng, "noise").initial_seed()
    public = Public.of(topology, told.trained.recipe, graph, noise, sample, told.regime.stem)
    owner_of = torch.zeros(len(population.train), dtype=torch.int64)
    holdings = {}
    for number, share in enumerate(share for share in population.shares if len(share)):
        owner_of[share] = number
        records = share.sort().values
        holdings[topology.owners[number]] = Holdings(records, population.train[records])
    return public, Private(topology.parties, holdings, state), owner_of


def walked(told: Told) -> tuple[Program, Heard]:
    """The same training by devices in one process."""
    public, private, owner_of = told_to(told)
    heard = Heard()
    program = Program(public, private, Mail(heard, ENCODED), heard)
    count, steps = len(told.population.train), told.trained.topology.steps
    order = batches(told.trained.recipe, count, child_rng(told.rng, "batches"))
    for step in range(steps):
        records = next(order)
        program.step(step, owner_of[records], records, step == steps - 1)
    return program, heard


def furthest(one, other):
    """Largest norm-wise relative difference of two states, tensor by tensor."""
    assert one.keys() == other.keys()
    found = 0.0
    for name, tensor in other.items():
        scale = max(float(tensor.double().norm()), 1e-300)
        found = max(found, float((one[name] - tensor).double().norm()) / scale)
    return found


def named(messages):
    """Messages by what names them; of those with one name, by their order."""
    found = {}
    for m in messages:
        rows = tuple(m.rows.tolist())
        key = (m.step, m.phase, m.kind, m.sender, m.receiver, m.layer, m.units, rows)
        number = 0
        while (*key, number) in found:
            number += 1
        found[*key, number] = m
    return found
