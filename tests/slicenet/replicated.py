"""Crowds of several replicas that the tests train, and how they look at them."""

from crowds import EVERYTHING, mlp

from privbench.contract import HEADER_BYTES, Spec
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.training import train
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.groups import grouped
from privbench.slicenet.replica_lines import ReplicaRouter, parts_of, replica_of_owners
from privbench.slicenet.trace import trace

NET, SHAPE = mlp(9, 8, 7, 6, 4), (1, 3, 3)
CONV = Spec("nets.Chain", {"side": 8, "channels": [4, 6], "widths": [8, 7, 4]})
ROWS = ("activation", "partial_sum", "gradient", "stem_gradient", "tail_gradient", "labels")
TRAFFIC = ("activation", "partial_sum", "gradient")


def regime(replicas=2, every=1, **other):
    settings = {"crowd": Uniform(devices=6), "granularity": 3, "epochs": 4, "batch": 12, "lr": 0.3}
    return SliceNet(replicas=replicas, average_every=every, **{**settings, **other})


def furthest(one, other):
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).norm() / other[k].norm()) for k in one)


def central(told):
    return train(told.trained.recipe, told.population.train, told.rng).weights


def cut(told, seat=EVERYTHING):
    """What a seat saw, whole messages cut."""
    router = ReplicaRouter(told.trained.topology)
    for message in told.tap.messages:
        yield from router.cut(message, told.tap.owners[message.step], seat)


def rows_by_replica(told):
    """For each step how many rows each replica had."""
    place, count = replica_of_owners(told.trained.topology), told.regime.replicas
    return {
        step: [int((place[owners] == n).sum()) for n in range(count)]
        for step, owners in told.tap.owners.items()
    }


def slice_bytes(topology):
    """Bytes that all parameters of the body take, tile by tile, and of how many tensors."""
    graph_of = trace(topology.net.module(), SHAPE)
    tensors = {stage.layer.name: stage.tensors for stage in graph_of.placed("body")}
    parts = [
        part
        for piece in parts_of(topology)[0].slices
        for tensor in tensors[piece.layer].values()
        if (part := piece.part(tensor)) is not None
    ]
    return sum(part.numel() for part in parts) * 8 + HEADER_BYTES * len(parts)


def named(message, rows=None):
    """What names a message; ``rows`` = where a replica's rows lie in the batch."""
    there = message.rows if rows is None else rows[message.rows]
    ends = (message.sender, message.receiver)
    return message.kind, *ends, message.layer, message.units, tuple(there.tolist())


def groups_of(told):
    graph = trace(told.trained.net.module().double(), SHAPE)
    sizes = [len(share) for share in told.population.shares]
    problem = told.regime.problem(graph, told.trained.recipe, sizes)
    return grouped(problem, sizes, told.regime.slicer, told.regime.replicas), problem
