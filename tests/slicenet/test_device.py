"""Devices that hold nothing but their slices, against the simulated crowd and centralized training."""

from __future__ import annotations

import pytest
import torch
from crowds import mlp, start, trained
from torch import nn
from torch.nn import functional as F

from privbench.contract import Spec, batches, child_rng
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.training import train
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.device import Holdings
from privbench.slicenet.program import Private, Program, Public
from privbench.slicenet.trace import trace
from privbench.slicenet.transport import Mail

OPTIMIZERS = {
    "sgd": ("torch.optim.SGD", {}, 0.1),
    "momentum": ("torch.optim.SGD", {"momentum": 0.9, "weight_decay": 1e-3}, 0.03),
    "adam": ("torch.optim.Adam", {}, 1e-3),
}
ENCODED = 2  # steps whose messages go through bytes


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


def regime(devices, tiling="output", optimizer="sgd", epochs=4, granularity=2, stem=1):
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
    )


def walked(told):
    """The same training by devices in one process: the program, and what was heard."""
    population, recipe = told.population, told.trained.recipe
    topology, state = told.trained.topology, start(told)
    module = told.net.module().to(population.train.x.dtype)
    module.load_state_dict(state)
    graph = trace(module, population.train.x.shape[1:], told.regime.stem)
    noise = child_rng(told.rng, "noise").initial_seed()
    sample = population.train.x[0]
    public = Public.of(topology, recipe, graph, noise, sample, told.regime.stem)
    owner_of = torch.zeros(len(population.train), dtype=torch.int64)
    holdings = {}
    for number, share in enumerate(population.shares):
        owner_of[share] = number
        records = share.sort().values
        holdings[topology.owners[number]] = Holdings(records, population.train[records])
    heard = Heard()
    private = Private(topology.parties, holdings, state)
    program = Program(public, private, Mail(heard, ENCODED), heard)
    order = batches(recipe, len(population.train), child_rng(told.rng, "batches"))
    for step in range(topology.steps):
        records = next(order)
        program.step(step, owner_of[records], records, step == topology.steps - 1)
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


def agree(told, steps=20):
    """Parameters, messages and bytes of devices are those of the simulated crowd."""
    assert told.trained.topology.steps == steps
    central = train(told.trained.recipe, told.population.train, told.rng).weights
    program, heard = walked(told)
    state = program.releaser.state
    for (_, name), value in program.counters().items():
        state[name] = value
    assert furthest(state, central) < 1e-10
    assert furthest(told.trained.net.weights, central) < 1e-12
    slow, fast = named(heard.messages), named(told.tap.cut())
    assert slow.keys() == fast.keys()
    for key, message in slow.items():
        torch.testing.assert_close(fast[key].payload, message.payload, rtol=1e-8, atol=1e-11)
    for kind, total in told.wire.bytes.items():
        assert total == sum(m.nbytes for m in heard.messages if m.kind == kind), kind
    return heard


class Residual(nn.Module):
    """A skip around a grouped and a depth-wise convolution, group norm, a gate, a concatenation."""

    def __init__(self, channels=4, classes=4):
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.group = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(4, 2 * channels)
        self.depth = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.point = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.batch = nn.BatchNorm2d(channels)
        self.squeeze = nn.Conv2d(channels, 2, 1)
        self.excite = nn.Conv2d(2, channels, 1)
        self.prelu = nn.PReLU(2 * channels)
        self.drop = nn.Dropout(0.3)
        self.flat = nn.Linear(2 * channels * 4, 6)
        self.norm1 = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = torch.relu(self.norm(self.group(x)))
        y = self.batch(self.point(self.depth(y)))
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        y = F.max_pool2d(y + x, 2)
        y = torch.cat([y, F.avg_pool2d(x, 2)], dim=1)
        y = self.drop(self.prelu(y))
        return self.last(F.relu(self.norm1(self.flat(y.flatten(1)))))


CONV = Spec("nets.Chain", {"side": 8, "channels": [3, 5, 4], "widths": [6, 4]})
NETS = {
    "mlp": (mlp(9, 8, 7, 6, 4), (1, 3, 3)),
    "conv": (CONV, (1, 8, 8)),
    "residual": (Spec("test_device.Residual"), (1, 4, 4)),
    "lenet": (Spec("privbench.models.lenet.LeNet5", {"classes": 4}), (1, 28, 28)),
    "alexnet": (
        Spec(
            "privbench.models.alexnet.AlexNet",
            {
                "channels": 1, "size": 8, "classes": 4, "convolutions": [3, 4, 5, 4, 4],
                "widths": [6, 5], "dropout": 0.3,
            },
        ),
        (1, 8, 8),
    ),
    "resnet": (
        Spec(
            "privbench.models.resnet.ResNet",
            {
                "channels": 1, "size": 8, "classes": 4, "widths": [4, 6, 8], "groups": 2, "se": True,
                "depthwise": True,
            },
        ),
        (1, 8, 8),
    ),
    "transformer": (
        Spec(
            "privbench.models.transformer.Transformer",
            {
                "channels": 1, "size": 8, "classes": 4, "patch": 4, "width": 8, "depth": 2,
                "heads": 2, "expansion": 2,
            },
        ),
        (1, 8, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("tiling", ["output", "input", "grid"])
@pytest.mark.parametrize("net", sorted(NETS))
def test_devices_alone_train_as_the_simulated_crowd_does(net, tiling):
    spec, shape = NETS[net]
    agree(trained(regime(5, tiling, granularity=2), spec, shape))
