"""What the regimes that SliceNet is compared with would cost the same crowd, on the same network.

Simulated like SliceNet's own step (``Queues``), from plain numbers; (ours). Servers are devices too:
their lines can be the bottleneck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from privbench.contract import Bill, Carried, Cost
from privbench.errors import UsageError
from privbench.slicenet.crowd import Device
from privbench.slicenet.crowds.presets import KINDS
from privbench.slicenet.queues import Queues
from privbench.slicenet.walk import STEM_FORWARD

SERVER = KINDS["microserver"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """A network, or a part of it, as far as costs go."""

    flops: float  # of forward and backward pass on one sample
    parameters: int  # numbers
    outputs: int  # numbers a sample that are kept until the backward pass
    element: int = 4  # bytes a number
    state: int = 0  # numbers that the optimiser keeps for each parameter

    def memory(self, rows: float) -> float:
        """Bytes to train it on so many rows at once: as a SliceNet host's are counted."""
        held = self.parameters * (2 + self.state)
        return float(self.element * (held + rows * self.outputs))


def centralized_bill(
    work: Work,
    devices: Sequence[Device],
    records: Sequence[int],
    *,
    sample: float,
    batch: int,
    steps: int,
    server: Device = SERVER,
) -> Bill:
    """Owners send their records, once, to a trainer who runs every step alone.

    Sending is spread over the steps, in bytes, joules and seconds alike. Held records do not count
    as memory, here as elsewhere.

    Args:
        records: of each device.
        sample: bytes of a record with its label.
        steps: of the whole training.
    """
    _check(devices, records, batch=batch, steps=steps)
    queues = Queues((*devices, server))
    trainer, owners = len(devices), np.flatnonzero(records)
    sizes = np.array(records, dtype=np.float64)[owners] * sample
    queues.gather(owners, trainer, sizes, np.zeros(len(owners)), "samples")
    sent, received = queues.sent / steps, queues.received / steps
    spent = batch * work.flops / server.speed
    flops, busy = np.zeros((2, trainer + 1))
    flops[trainer], busy[trainer] = batch * work.flops, spent
    memory = np.zeros(trainer + 1)
    memory[trainer] = work.memory(batch)
    names = (*_numbered("device", trainer), "trainer")
    costs = _costs(names, (*devices, server), flops, sent, received, memory, busy)
    kinds = (Carried("samples", queues.kinds["samples"] / steps),)
    return Bill("centralized", float(batch), queues.end / steps + spent, costs, kinds)


def fedavg_bill(
    work: Work,
    devices: Sequence[Device],
    rows: Sequence[int],
    *,
    batch: int,
    server: Device = SERVER,
) -> Bill:
    """One round of federated averaging: the model out, local steps, updates back.

    Args:
        rows: records that each device learns from in the round, each time it does; 0 = it does not
            take part.
        batch: records of a local step.
    """
    _check(devices, rows, batch=batch)
    queues = Queues((*devices, server))
    number, clients = len(devices), np.flatnonzero(rows)
    size = float(work.parameters * work.element)
    arrived = queues.cast(number, clients, size, 0.0, "global_weights")
    done = [
        queues.compute(client, rows[client] * work.flops, at)
        for client, at in zip(clients.tolist(), arrived.tolist(), strict=True)
    ]
    updates = queues.gather(clients, number, size, np.array(done), "update")
    queues.compute(number, 2.0 * work.parameters * len(clients), float(updates.max()))
    memory = np.zeros(number + 1)
    for client in clients.tolist():
        # the global model too, to take the difference from
        memory[client] = work.memory(min(batch, rows[client])) + size
    memory[number] = 2 * size  # the model, and the sum of updates
    names = (*_numbered("client", number), "server")
    costs = _costs(
        names, (*devices, server), queues.flops, queues.sent, queues.received, memory, queues.busy
    )
    kinds = tuple(Carried(kind, nbytes) for kind, nbytes in sorted(queues.kinds.items()))
    return Bill("fedavg", float(sum(rows)), queues.end, costs, kinds)


def split_bill(
    work: Work,
    stem: Work,
    devices: Sequence[Device],
    records: Sequence[int],
    *,
    cut: int,
    batch: int,
    label: float = 8.0,
    server: Device = SERVER,
) -> Bill:
    """A step of two-party split learning: one client runs the stem, the server the rest.

    Owners take turns as the client, each as often as its part of the records says: the means over
    steps are given, and the memory of a turn. That the stem passes from client to client is not
    counted: these bytes are a lower bound.

    Args:
        work: the whole network.
        stem: the client's part.
        cut: numbers a sample that cross.
        label: bytes of a label; it goes to the server with the activation.
    """
    _check(devices, records, batch=batch)
    server_at, total = len(devices), sum(records)
    flops, sent, received, memory, busy = np.zeros((5, server_at + 1))
    seconds, size = 0.0, float(batch * cut * work.element)
    for number, device in enumerate(devices):
        part = records[number] / total
        if not part:
            continue
        queues = _turn(work, stem, device, server, batch, size, batch * label)
        seconds += part * queues.end
        memory[number] = stem.memory(batch)
        for sums, turn in zip(
            (flops, sent, received, busy),
            (queues.flops, queues.sent, queues.received, queues.busy),
            strict=True,
        ):
            sums[number] += part * turn[0]
            sums[server_at] += part * turn[1]
    memory[server_at] = work.memory(batch) - stem.memory(batch)
    names = (*_numbered("device", server_at), "split_server")
    costs = _costs(names, (*devices, server), flops, sent, received, memory, busy)
    kinds = (
        Carried("activation", size),
        Carried("gradient", size),
        Carried("labels", batch * label),
    )
    return Bill("split", float(batch), seconds, costs, kinds)


def _turn(
    work: Work, stem: Work, client: Device, server: Device, batch: int, size: float, labels: float
) -> Queues:
    """A step with one client: 0; the server is 1."""
    queues = Queues((client, server))
    to_server, to_client = np.array([1]), np.array([0])
    done = queues.compute(0, batch * stem.flops * STEM_FORWARD, 0.0)
    queues.cast(0, to_server, size, done, "activation")
    arrived = queues.cast(0, to_server, labels, done, "labels")
    done = queues.compute(1, batch * (work.flops - stem.flops), float(arrived[0]))
    arrived = queues.cast(1, to_client, size, done, "gradient")
    queues.compute(0, batch * stem.flops * (1 - STEM_FORWARD), float(arrived[0]))
    return queues


def _check(devices: Sequence[Device], rows: Sequence[int], **counts: int) -> None:
    if len(rows) != len(devices) or not sum(rows) > 0 or min(rows) < 0:
        raise UsageError(
            f"{len(rows)} numbers of records that sum to {sum(rows)}; expected one for each of "
            f"{len(devices)} devices, none negative, not all 0"
        )
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name}={count}; expected at least 1")


def _numbered(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word}-{number}" for number in range(count))


def _costs(
    parties: Sequence[str], devices: Sequence[Device], *columns: np.ndarray
) -> tuple[Cost, ...]:
    """Columns: FLOP, bytes sent, bytes received, bytes held, seconds."""
    return tuple(
        Cost(party, flops, sent, received, memory, busy, device.joules(flops, sent + received))
        for party, device, flops, sent, received, memory, busy in zip(
            parties, devices, *(column.tolist() for column in columns), strict=True
        )
    )
