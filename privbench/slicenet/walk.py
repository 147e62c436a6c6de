"""One training step through the network, forth and back, in simulated time."""

from __future__ import annotations

import heapq

import numpy as np
from jaxtyping import Float64

from privbench.errors import PluginError
from privbench.slicenet.places import LABEL_BYTES
from privbench.slicenet.problem import Flow, Problem, Slicing
from privbench.slicenet.queues import Numbers, Queues

FORWARD = 1 / 3  # of a vertex's FLOP: gradients of inputs and of weights cost as much each
STEM_FORWARD = 1 / 2  # the first layer needs no gradient of its input


def is_partial(problem: Problem, flow: Flow) -> bool:
    """Does a flow carry partial sums of one layer: from its targets to its source, who adds them up?"""
    if not flow.sources or not flow.targets or flow.to_owners:
        return False
    ends = (*flow.sources, *flow.targets)
    return {problem.vertices[vertex].layer for vertex in ends} == {flow.layer}


class _Edges:
    """Flows, seen from vertices and devices."""

    def __init__(self, problem: Problem, hosts: Numbers) -> None:
        count = len(problem.vertices)
        self.flows = problem.flows
        self.partial = [is_partial(problem, flow) for flow in problem.flows]
        self.inward: list[list[int]] = [[] for _ in range(count)]
        self.outward: list[list[tuple[int, int]]] = [[] for _ in range(count)]  # flow, place in it
        self.adds: list[list[int]] = [[] for _ in range(count)]  # partial sums that it adds up
        self.added: list[list[int]] = [[] for _ in range(count)]  # those that it is a part of
        self.receivers: list[Numbers] = []
        self.slots: list[dict[int, int]] = []  # where a device stands among the receivers
        for number, flow in enumerate(problem.flows):
            devices = np.unique(hosts[list(flow.targets)])
            self.receivers.append(devices)
            self.slots.append({device: slot for slot, device in enumerate(devices.tolist())})
            for target in flow.targets:
                (self.added if self.partial[number] else self.inward)[target].append(number)
            for place, source in enumerate(flow.sources):
                if self.partial[number]:
                    self.adds[source].append(number)
                else:
                    self.outward[source].append((number, place))
        self.fed = [number for number, flow in enumerate(problem.flows) if not flow.sources]

    def others(self, flow: int, device: int) -> tuple[Numbers, np.ndarray]:
        """Receivers of a flow but for one device, and a mask of their slots."""
        mask = self.receivers[flow] != device
        return self.receivers[flow][mask], mask


class Walk:
    """One step, forth and back.

    Args:
        rows: of each device in the batch.
        tail: FLOP of the tail on one sample.
        queues: of the devices and, last, the coordinator; they hold the result.
    """

    def __init__(
        self, problem: Problem, slicing: Slicing, rows: Numbers, tail: float, queues: Queues
    ) -> None:
        self.problem, self.queues, self.rows, self.tail = problem, queues, rows, tail
        self.hosts = np.array(slicing.hosts, dtype=np.int64)
        self.edges = _Edges(problem, self.hosts)
        self.owners: Numbers = np.flatnonzero(rows)
        count = len(problem.vertices)
        self.at = [
            np.zeros(len(devices)) for devices in self.edges.receivers
        ]  # when a flow is whole
        self.back = [np.zeros(len(devices)) for devices in self.edges.receivers]  # gradients ready
        self.made = np.zeros(count)  # when a vertex's output is ready
        self.exit = np.zeros(len(problem.devices))  # when an owner has the last hidden activation
        self.told = 0.0  # when the labels are where the loss is computed

    def run(self) -> None:
        """All of it."""
        self._stem()
        self._forward()
        for owner in self.owners.tolist():
            flops = float(self.rows[owner]) * self.tail
            self.exit[owner] = self.queues.compute(owner, flops, float(self.exit[owner]))
        self._backward()
        self._finish()

    def _stem(self) -> None:
        stem = self.problem.owner_flops - self.tail
        for owner in self.owners.tolist():
            count = float(self.rows[owner])
            done = self.queues.compute(owner, count * stem * STEM_FORWARD, 0.0)
            self.exit[owner] = done
            for flow in self.edges.fed:
                nbytes = count * sum(self.edges.flows[flow].numbers) * self.problem.element
                self._publish(flow, owner, nbytes, done)
        if self.problem.scorer is not None:
            scorer = int(self.hosts[self.problem.scorer])
            owners = self.owners[self.owners != scorer]
            nbytes_each = self.rows[owners] * float(LABEL_BYTES)
            arrived = self.queues.gather(owners, scorer, nbytes_each, self.exit[owners], "labels")
            self.told = float(arrived.max(initial=0.0))

    def _publish(self, flow: int, device: int, nbytes: float, ready: float) -> None:
        """A block goes to each other device that needs it."""
        others, mask = self.edges.others(flow, device)
        at = self.at[flow]
        if len(others):
            arrived = self.queues.cast(device, others, nbytes, ready, "activation")
            at[mask] = np.maximum(at[mask], arrived)
        at[~mask] = np.maximum(at[~mask], ready)

    def _forward(self) -> None:
        edges, flows = self.edges, self.edges.flows
        left = [len(flow.sources) for flow in flows]
        missing = [sum(left[f] > 0 for f in inward) for inward in edges.inward]
        parts = [1 + sum(len(flows[f].targets) for f in adds) for adds in edges.adds]
        summed = [np.zeros(len(devices)) for devices in edges.receivers]
        ready = [vertex for vertex, count in enumerate(missing) if not count]
        seen = 0
        while ready:
            vertex = heapq.heappop(ready)
            seen += 1
            device = int(self.hosts[vertex])
            start = max(
                (self.at[f][edges.slots[f][device]] for f in edges.inward[vertex]), default=0
            )
            if vertex == self.problem.scorer:
                start = max(start, self.told)
            flops = self.problem.batch * self.problem.vertices[vertex].flops * FORWARD
            done = self.queues.compute(device, flops, float(start))
            self.made[vertex] = done
            whole = [vertex]
            for flow in edges.added[vertex]:
                slot = edges.slots[flow][device]
                summed[flow][slot] = max(summed[flow][slot], done)
                whole += flows[flow].sources
            for source in whole:
                parts[source] -= 1
                if parts[source] or (source == vertex and edges.added[vertex]):
                    continue
                for flow in self._give(source, summed):
                    left[flow] -= 1
                    if not left[flow]:
                        for target in flows[flow].targets:
                            missing[target] -= 1
                            if not missing[target]:
                                heapq.heappush(ready, target)
        _check_seen(seen, self.problem)

    def _give(self, vertex: int, summed: list[Float64[np.ndarray, " _n"]]) -> list[int]:
        """Add up partial sums, if any, and publish the vertex's block; the flows that it went into."""
        device, edges, problem = int(self.hosts[vertex]), self.edges, self.problem
        for flow in edges.adds[vertex]:
            others, mask = edges.others(flow, device)
            nbytes = self._nbytes(flow, 0)
            arrived = self.queues.gather(others, device, nbytes, summed[flow][mask], "partial_sum")
            parts = np.concatenate([arrived, summed[flow][~mask]])
            self.made[vertex] = max(self.made[vertex], parts.max(initial=0.0))
        ready = float(self.made[vertex])
        for flow, place in edges.outward[vertex]:
            self._publish(flow, device, self._nbytes(flow, place), ready)
            if edges.flows[flow].to_owners:
                owners = self.owners[self.owners != device]
                nbytes = self._nbytes(flow, place) / problem.batch * self.rows[owners]
                arrived = self.queues.cast(device, owners, nbytes, ready, "activation")
                self.exit[owners] = np.maximum(self.exit[owners], arrived)
                self.exit[device] = max(self.exit[device], ready)
        return [flow for flow, _ in edges.outward[vertex]]

    def _nbytes(self, flow: int, place: int) -> float:
        """Bytes of one block of a flow, for the whole batch."""
        numbers = self.edges.flows[flow].numbers[place]
        return float(self.problem.batch * numbers * self.problem.element)

    def _backward(self) -> None:
        edges, flows = self.edges, self.edges.flows
        left = [len(flow.targets) for flow in flows]
        missing = [
            sum(left[f] > 0 for f, _ in outward) + len(added)
            for outward, added in zip(edges.outward, edges.added, strict=True)
        ]
        slopes = [np.zeros(len(devices)) for devices in edges.receivers]
        ready = [-vertex for vertex, count in enumerate(missing) if not count]
        heapq.heapify(ready)
        seen = 0
        while ready:
            vertex = -heapq.heappop(ready)
            seen += 1
            device = int(self.hosts[vertex])
            start = self._collect(vertex, slopes)
            for flow in edges.adds[vertex]:
                for target in flows[flow].targets:
                    missing[target] -= 1
                    if not missing[target]:
                        heapq.heappush(ready, -target)
            flops = self.problem.batch * self.problem.vertices[vertex].flops * (1 - FORWARD)
            done = self.queues.compute(device, flops, start)
            for flow in edges.inward[vertex]:
                slot = edges.slots[flow][device]
                self.back[flow][slot] = max(self.back[flow][slot], done)
                left[flow] -= 1
                for source in () if left[flow] else flows[flow].sources:
                    missing[source] -= 1
                    if not missing[source]:
                        heapq.heappush(ready, -source)
        _check_seen(seen, self.problem)

    def _collect(self, vertex: int, slopes: list[Float64[np.ndarray, " _n"]]) -> float:
        """When the whole gradient of a vertex's block is there; it goes on to parts of a sum, if any."""
        device, edges = int(self.hosts[vertex]), self.edges
        start = float(self.made[vertex])
        for flow in edges.added[vertex]:
            start = max(start, float(slopes[flow][edges.slots[flow][device]]))
        for flow, place in edges.outward[vertex]:
            others, mask = edges.others(flow, device)
            ready, nbytes = self.back[flow], self._nbytes(flow, place)
            arrived = self.queues.gather(others, device, nbytes, ready[mask], "gradient")
            start = max(start, arrived.max(initial=0.0), ready[~mask].max(initial=0.0))
            if edges.flows[flow].to_owners:
                owners = self.owners[self.owners != device]
                nbytes_each = nbytes / self.problem.batch * self.rows[owners]
                arrived = self.queues.gather(
                    owners, device, nbytes_each, self.exit[owners], "gradient"
                )
                own = float(self.exit[device]) if self.rows[device] else 0.0
                start = max(start, arrived.max(initial=0.0), own)
        for flow in edges.adds[vertex]:
            others, mask = edges.others(flow, device)
            slopes[flow][mask] = self.queues.cast(
                device, others, self._nbytes(flow, 0), start, "gradient"
            )
            slopes[flow][~mask] = start
        return float(start)

    def _finish(self) -> None:
        """Gradients reach the owners, theirs the coordinator, and new weights the owners again."""
        problem, queues, coordinator = self.problem, self.queues, len(self.problem.devices)
        stem = problem.owner_flops - self.tail
        done = np.empty(len(self.owners))
        for place, owner in enumerate(self.owners.tolist()):
            start, count = float(self.exit[owner]), float(self.rows[owner])
            for flow in self.edges.fed:
                others, mask = self.edges.others(flow, owner)
                nbytes = count * sum(self.edges.flows[flow].numbers) * problem.element
                ready = self.back[flow]
                arrived = queues.gather(others, owner, nbytes, ready[mask], "gradient")
                start = max(start, arrived.max(initial=0.0), ready[~mask].max(initial=0.0))
            done[place] = queues.compute(owner, count * stem * (1 - STEM_FORWARD), start)
        nbytes = float(problem.owner_parameters * problem.element)
        arrived = queues.gather(self.owners, coordinator, nbytes, done, "owner_gradient")
        queues.cast(coordinator, self.owners, nbytes, float(arrived.max()), "owner_weights")


def _check_seen(seen: int, problem: Problem) -> None:
    if seen < len(problem.vertices):
        raise PluginError(
            f"flows of this problem go in a circle: {len(problem.vertices) - seen} of "
            f"{len(problem.vertices)} vertices never have all that they need"
        )
