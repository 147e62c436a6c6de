"""Crowds of any network: bit-equal to centralized training, whoever listens, and bytes as counted."""

import pytest
import torch
from crowds import trained

from privbench.contract import HEADER_BYTES, Spec
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.training import train
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.problem import Slicing, volume
from privbench.slicenet.slicers.random import Random
from privbench.slicenet.trace import trace

NETS = {
    "residual": (Spec("nets.Residual", {}), (1, 8, 8)),
    "squeeze": (Spec("nets.Residual", {"squeeze": True}), (1, 8, 8)),
    "mobile": (Spec("nets.Mobile", {}), (1, 8, 8)),
    "dense": (Spec("nets.Dense", {}), (1, 4, 4)),
    "transformer": (Spec("nets.Transformer", {}), (1, 8, 8)),
}
TRAFFIC = ("activation", "partial_sum", "gradient")


def crowd(tiling, devices=7, **settings):
    return SliceNet(
        crowd=Uniform(devices=devices),
        slicer=Random(seed=devices),
        tiling=tiling,
        granularity=2,
        epochs=2,
        batch=9,
        lr=0.1,
        **settings,
    )


QUICK = [("residual", "output"), ("squeeze", "grid"), ("mobile", "input"), ("dense", "grid"),
         ("transformer", "output")]  # fmt: skip
SLOW = [(name, tiling) for name in sorted(NETS) for tiling in ("output", "input", "grid")]


@pytest.mark.parametrize(
    "name, tiling",
    [*QUICK, *(pytest.param(*e, marks=pytest.mark.slow) for e in SLOW if e not in QUICK)],
)
def test_a_crowd_trains_as_one_machine_does_and_sends_what_is_counted(name, tiling):
    spec, shape = NETS[name]
    loud = trained(crowd(tiling), spec, shape, count=20, dtype=torch.float32)
    still = trained(crowd(tiling), spec, shape, count=20, dtype=torch.float32, taps=False)
    central = train(loud.trained.recipe, loud.population.train, loud.rng).weights
    for key, tensor in central.items():
        assert torch.equal(still.trained.net.weights[key], tensor), key
        assert torch.equal(loud.trained.net.weights[key], tensor), key
    assert loud.wire.bytes == still.wire.bytes
    cut = list(loud.tap.cut())
    for kind, total in loud.wire.bytes.items():
        assert total == sum(m.nbytes for m in cut if m.kind == kind), kind
    graph = trace(loud.trained.net.module(), shape)
    sizes = [len(share) for share in loud.population.shares]
    problem = crowd(tiling).problem(graph, loud.trained.recipe, sizes)
    hosts = tuple(int(piece.party.split("-")[1]) for piece in loud.trained.topology.slices)
    payload = sum(m.nbytes - HEADER_BYTES for m in cut if m.kind in TRAFFIC)
    assert payload == volume(problem, Slicing(hosts)) * 20 * 2  # two passes over 20 records
