"""Devices and their lines as queues: one computation a device, one transfer a line, at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from privbench.slicenet.crowd import Device

Times = Float64[np.ndarray, " n"]
Numbers = Int64[np.ndarray, " n"]


class Queues:
    """What each device and each line is busy with, and until when (ours).

    A device has one line up and one line down. A transfer starts when the sender's up and the
    receiver's down are free, takes ``bytes / min(up, down)`` seconds and half of each end's latency,
    and holds each line as long as that line's own rate asks for: so between two devices one transfer
    passes at a time, a fast line serves several slow ones at once, and no line carries more than its
    rate. What is asked for first is served first: nothing that comes later slips in before it.

    Args:
        devices: numbered as they are named below.
    """

    def __init__(self, devices: Sequence[Device]) -> None:
        def each(name: str) -> Times:
            return np.array([getattr(device, name) for device in devices], dtype=np.float64)

        count = len(devices)
        self._speed, self._up, self._down = each("speed"), each("up"), each("down")
        self._half = each("latency") / 2
        self._free, self._up_free, self._down_free = np.zeros((3, count))
        self.flops, self.busy, self.sent, self.received = np.zeros((4, count))
        self.kinds: defaultdict[str, float] = defaultdict(float)
        self.end = 0.0

    def compute(self, device: int, flops: float, ready: float) -> float:
        """When a device that may begin at ``ready`` is done."""
        if not flops:
            return ready
        spent = flops / self._speed[device]
        done = float(max(self._free[device], ready) + spent)
        self._free[device] = done
        self.busy[device] += spent
        self.flops[device] += flops
        self.end = max(self.end, done)
        return done

    def cast(
        self, sender: int, receivers: Numbers, nbytes: Times | float, ready: float, kind: str
    ) -> Times:
        """Send to each of many, those first whose line is free first; when each has it.

        Args:
            sender: has it from ``ready`` on.
            receivers: distinct devices, not the sender.
            nbytes: for each receiver.
            kind: of the messages, for the count of bytes.
        """
        floor = np.maximum(self._down_free[receivers], ready)
        order = np.argsort(floor, kind="stable")
        others = receivers[order]
        sizes = np.broadcast_to(np.asarray(nbytes, dtype=np.float64), others.shape)[order]
        held = sizes / self._up[sender]
        starts = _starts(float(self._up_free[sender]), floor[order], held)
        if len(others):
            self._up_free[sender] = starts[-1] + held[-1]
        self._down_free[others] = starts + sizes / self._down[others]
        ends = starts + sizes / np.minimum(self._up[sender], self._down[others])
        self.received[others] += sizes
        self.sent[sender] += sizes.sum()
        return self._arrived(order, ends + self._half[sender] + self._half[others], sizes, kind)

    def gather(
        self, senders: Numbers, receiver: int, nbytes: Times | float, ready: Times, kind: str
    ) -> Times:
        """Receive from each of many, those first who can send first; when each of theirs is there.

        Args:
            senders: distinct devices, not the receiver; each has it from its ``ready`` on.
        """
        floor = np.maximum(self._up_free[senders], ready)
        order = np.argsort(floor, kind="stable")
        others = senders[order]
        sizes = np.broadcast_to(np.asarray(nbytes, dtype=np.float64), others.shape)[order]
        held = sizes / self._down[receiver]
        starts = _starts(float(self._down_free[receiver]), floor[order], held)
        if len(others):
            self._down_free[receiver] = starts[-1] + held[-1]
        self._up_free[others] = starts + sizes / self._up[others]
        ends = starts + sizes / np.minimum(self._up[others], self._down[receiver])
        self.sent[others] += sizes
        self.received[receiver] += sizes.sum()
        return self._arrived(order, ends + self._half[receiver] + self._half[others], sizes, kind)

    def _arrived(self, order: Numbers, times: Times, sizes: Times, kind: str) -> Times:
        self.kinds[kind] += float(sizes.sum())
        self.end = max(self.end, float(times.max(initial=0.0)))
        arrived = np.empty_like(times)
        arrived[order] = times
        return arrived


def _starts(free: float, floor: Times, held: Times) -> Times:
    """When a queue starts each of its jobs, in order.

    Job k starts when job k - 1 no longer holds the queue and ``floor[k]`` is past; less what the
    jobs before k hold it, that is a running maximum, and needs no loop.
    """
    before = np.cumsum(held) - held
    return before + np.maximum(np.maximum.accumulate(floor - before), free)
