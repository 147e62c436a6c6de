"""Small crowds whose devices fail, and what tests ask of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from crowds import mlp, trained
from failing import cut

from privbench.regimes.slicenet import SliceNet
from privbench.slicenet.crowd import Device, Uniform
from privbench.slicenet.faults import Faults
from privbench.slicenet.problem import Slicing
from privbench.slicenet.slicers.base import Slicer

SHAPE, NET = (6,), mlp(6, 8, 8, 4)  # layers linear0 (stem), linear1, linear2 (tail)
DEEP = mlp(6, 6, 8, 8, 4)


@dataclass(frozen=True, kw_only=True)
class InTurn(Slicer):
    """Vertex i goes to device i, over and over."""

    hosts: int = 3

    def slice(self, problem):
        return Slicing(tuple(n % self.hosts for n in range(len(problem.vertices))))


def regime(*, devices=4, hosts=3, device=None, only=None, **settings):
    faults = Faults(**settings.pop("faults", {}))
    crowd = Uniform(devices=devices, hosts=only, device=device or Device())
    given = {"granularity": 3, "epochs": 2, "batch": 6, "lr": 0.1, "faults": faults, **settings}
    return SliceNet(crowd=crowd, slicer=given.pop("slicer", InTurn(hosts=hosts)), **given)


def run(net=DEEP, taps=True, wire=None, **settings):
    return trained(regime(**settings), net, SHAPE, taps=taps, **(wire or {}))


def weights(told):
    return told.trained.net.weights


def topology(told):
    """Without the network, which is equal to nothing but itself."""
    return replace(told.trained.topology, net=None)


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def near(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in other) < 1e-12


def part(told, home, state):
    """What a home's slices hold of a state, as one vector."""
    found = []
    for piece in told.trained.topology.slices:
        if piece.party == home:
            for end in ("weight", "bias"):
                name = f"{piece.layer}.{end}"
                found.append(state[name][cut(piece, name, state[name])])
    return torch.cat(found)
