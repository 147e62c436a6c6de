"""Simulated time: by hand, and against a slow obvious twin."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from privbench.errors import PluginError, UsageError
from privbench.slicenet.clock import COORDINATOR, timed, typical_rows
from privbench.slicenet.crowd import Device
from privbench.slicenet.problem import Flow, Problem, Slicing, Vertex, volume

PLAIN = Device(
    speed=1.0, up=1.0, down=1.0, latency=0.0, energy_per_flop=2.0, energy_per_byte=10.0
)  # seconds are FLOP and bytes


def toy(vertices, flows, devices, batch=1, shares=None, **other):
    """A problem with one byte a number; device 0 owns all unless told."""
    own = shares or [1] + [0] * (len(devices) - 1)
    settings = {"owner_flops": 0.0, "owner_parameters": 0, **other}
    return Problem(
        vertices=tuple(Vertex(layer, flops, 1, 1) for layer, flops in vertices),
        flows=tuple(flows),
        devices=tuple(devices),
        shares=tuple(Fraction(share) for share in own),
        batch=batch,
        own_rows=tuple(batch for _ in devices),
        element=1,
        state=0,
        owner_output=0,
        **settings,
    )


class Twin:
    """The same step, transfer by transfer, with nothing but loops over everything there is."""

    def __init__(self, problem, slicing, rows, tail, coordinator=COORDINATOR):
        self.p, self.hosts, self.rows, self.tail = problem, slicing.hosts, rows, tail
        self.devices = [*problem.devices, coordinator]
        self.free = {name: [0.0] * len(self.devices) for name in ("cpu", "up", "down")}
        self.busy, self.flops, self.sent, self.received = np.zeros((4, len(self.devices)))
        self.end = 0.0
        self.owners = [device for device, count in enumerate(rows) if count]

    def compute(self, device, flops, ready):
        if flops == 0:
            return ready
        start = max(ready, self.free["cpu"][device])
        self.free["cpu"][device] = start + flops / self.devices[device].speed
        self.busy[device] += flops / self.devices[device].speed
        self.flops[device] += flops
        self.end = max(self.end, self.free["cpu"][device])
        return self.free["cpu"][device]

    def transfer(self, sender, receiver, nbytes, ready):
        one, other = self.devices[sender], self.devices[receiver]
        start = max(ready, self.free["up"][sender], self.free["down"][receiver])
        self.free["up"][sender] = start + nbytes / one.up
        self.free["down"][receiver] = start + nbytes / other.down
        self.sent[sender] += nbytes
        self.received[receiver] += nbytes
        arrived = start + nbytes / min(one.up, other.down) + (one.latency + other.latency) / 2
        self.end = max(self.end, arrived)
        return arrived

    def to_many(self, sender, sizes, ready):
        """Sizes and arrivals by receiver; whoever is free first is served first."""
        free = self.free["down"]
        order = sorted(sizes, key=lambda device: (max(ready, free[device]), device))
        return {device: self.transfer(sender, device, sizes[device], ready) for device in order}

    def from_many(self, receiver, sizes, ready):
        free = self.free["up"]
        order = sorted(sizes, key=lambda device: (max(ready[device], free[device]), device))
        return {d: self.transfer(d, receiver, sizes[d], ready[d]) for d in order}

    def partial(self, flow):
        layers = {self.p.vertices[v].layer for v in (*flow.sources, *flow.targets)}
        return bool(flow.sources and flow.targets) and layers == {flow.layer}

    def users(self, flow):
        return sorted({self.hosts[target] for target in flow.targets})

    def run(self):
        p, flows = self.p, self.p.flows
        whole, exits = {}, {}
        stem = p.owner_flops - self.tail
        for owner in self.owners:
            exits[owner] = done = self.compute(owner, self.rows[owner] * stem / 2, 0.0)
            for f, flow in enumerate(flows):
                if not flow.sources:
                    nbytes = self.rows[owner] * sum(flow.numbers)
                    self.spread(whole, f, owner, self.users(flow), nbytes, done)
        made, given = {}, set()
        while len(made) < len(p.vertices):
            ready = [v for v in range(len(p.vertices)) if v not in made and self.fed(v, given)]
            v = ready[0]
            device = self.hosts[v]
            times = [whole[f, device] for f, flow in enumerate(flows) if self.eats(flow, v)]
            made[v] = self.compute(device, p.batch * p.vertices[v].flops / 3, max(times, default=0))
            for r in range(len(p.vertices)):
                mine = [f for f in flows if self.partial(f) and r in f.sources]
                parts = [t for f in mine for t in f.targets]
                part_of = any(self.partial(f) and r in f.targets for f in flows)
                if r in given or part_of or not all(t in made for t in (r, *parts)):
                    continue
                given.add(r)
                self.give(r, made, whole, exits, mine)
        for owner in self.owners:
            exits[owner] = self.compute(owner, self.rows[owner] * self.tail, exits[owner])
        self.back(made, exits, stem)
        return self

    def spread(self, whole, f, sender, users, nbytes, ready):
        arrived = self.to_many(sender, {d: nbytes for d in users if d != sender}, ready)
        for device in users:
            time = arrived.get(device, ready)
            whole[f, device] = max(whole.get((f, device), 0.0), time)

    def eats(self, flow, v):
        return v in flow.targets and not self.partial(flow)

    def fed(self, v, given):
        return all(set(flow.sources) <= given for flow in self.p.flows if self.eats(flow, v))

    def give(self, r, made, whole, exits, mine):
        p, device = self.p, self.hosts[r]
        for flow in mine:
            ready = {
                d: max(made[t] for t in flow.targets if self.hosts[t] == d)
                for d in self.users(flow)
            }
            sizes = {d: p.batch * flow.numbers[0] for d in ready if d != device}
            arrived = self.from_many(device, sizes, ready)
            made[r] = max([made[r], *arrived.values(), ready.get(device, 0.0)])
        for f, flow in enumerate(p.flows):
            if self.partial(flow) or r not in flow.sources:
                continue
            numbers = flow.numbers[flow.sources.index(r)]
            self.spread(whole, f, device, self.users(flow), p.batch * numbers, made[r])
            if flow.to_owners:
                sizes = {o: numbers * self.rows[o] for o in self.owners if o != device}
                for owner, time in self.to_many(device, sizes, made[r]).items():
                    exits[owner] = max(exits[owner], time)
                if device in exits:
                    exits[device] = max(exits[device], made[r])

    def back(self, made, exits, stem):
        p, done, slopes, flows = self.p, {}, {}, list(enumerate(self.p.flows))
        while len(done) < len(p.vertices):
            ready = [
                v for v in range(len(p.vertices)) if v not in done and self.told(v, done, slopes)
            ]
            v = ready[-1]
            device = self.hosts[v]
            start = max(
                [
                    made[v],
                    *(
                        slopes[f, device]
                        for f, flow in flows
                        if (f, device) in slopes and v in flow.targets
                    ),
                ]
            )
            for _, flow in flows:
                if self.partial(flow) or v not in flow.sources:
                    continue
                numbers = flow.numbers[flow.sources.index(v)]
                start = max(start, self.returned(flow, device, p.batch * numbers, done))
                if flow.to_owners:
                    sizes = {o: numbers * self.rows[o] for o in self.owners if o != device}
                    start = max([start, *self.from_many(device, sizes, exits).values()])
                    start = max(start, exits.get(device, 0.0))
            for f, flow in flows:
                if self.partial(flow) and v in flow.sources:
                    sizes = {d: p.batch * flow.numbers[0] for d in self.users(flow) if d != device}
                    slopes |= {(f, d): t for d, t in self.to_many(device, sizes, start).items()}
                    if device in self.users(flow):
                        slopes[f, device] = start
            done[v] = self.compute(device, p.batch * p.vertices[v].flops * 2 / 3, start)
        ends = {}
        for owner in self.owners:
            start = exits[owner]
            for _, flow in flows:
                if not flow.sources:
                    nbytes = self.rows[owner] * sum(flow.numbers)
                    start = max(start, self.returned(flow, owner, nbytes, done))
            ends[owner] = self.compute(owner, self.rows[owner] * stem / 2, start)
        sizes = dict.fromkeys(self.owners, p.owner_parameters)
        arrived = self.from_many(len(p.devices), sizes, ends)
        self.to_many(len(p.devices), sizes, max(arrived.values()))

    def returned(self, flow, device, nbytes, done):
        """When the gradients of one block are back from those who used it."""
        ready = {
            d: max(done[t] for t in flow.targets if self.hosts[t] == d) for d in self.users(flow)
        }
        sizes = {d: nbytes for d in ready if d != device}
        return max([0.0, *self.from_many(device, sizes, ready).values(), ready.get(device, 0.0)])

    def told(self, v, done, slopes):
        for f, flow in enumerate(self.p.flows):
            if self.partial(flow):
                if v in flow.targets and (f, self.hosts[v]) not in slopes:
                    return False
            elif v in flow.sources and not all(target in done for target in flow.targets):
                return False
        return True


def test_two_devices_by_hand():
    """Owner 0 hosts the first vertex, 1 the second; each number is one byte is one second."""
    flows = [
        Flow("stem", (), (2,), (0,)),
        Flow("a", (0,), (3,), (1,)),
        Flow("b", (1,), (5,), (), True),
    ]
    problem = toy(
        [("a", 9.0), ("b", 12.0)], flows, [PLAIN, PLAIN], owner_flops=10.0, owner_parameters=7
    )
    found = timed(problem, Slicing((0, 1)), tail_flops=4.0)
    there = 3 + 3 + 3 + 4 + 5 + 4  # stem, a, a to 1, b, b to the owner, tail with its backward pass
    back = (
        5 + 8 + 3 + 6 + 3 + 7 + 7
    )  # to 1, b, to 0, a, stem; weights' gradient up, new weights down
    assert found.seconds == there + back
    assert found.flops.tolist() == [10 + 9, 12] == found.busy.tolist()
    assert found.sent.tolist() == [3 + 5 + 7, 5 + 3]
    assert found.received.tolist() == [5 + 3 + 7, 3 + 5]
    assert found.joules.tolist() == [2 * 19 + 10 * 30, 2 * 12 + 10 * 16]
    kinds = {each.kind: each.nbytes for each in found.kinds}
    assert kinds == {"activation": 8, "gradient": 8, "owner_gradient": 7, "owner_weights": 7}


def test_a_line_is_held_as_long_as_its_own_rate_asks():
    """A sender of rate 2 serves two receivers of rate 1: half a second apart, one second each."""
    flows = [Flow("stem", (), (1,), (0, 1))]
    fast = replace(PLAIN, up=2.0, latency=0.2)
    problem = toy([("a", 0.0), ("a", 0.0)], flows, [fast, PLAIN, PLAIN])
    # there at 1.1 and 1.6; back on one line of rate 1 from 1.1 to 2.1 and from 2.1 to 3.1, there at
    # 3.2; then nothing, in bytes, to the coordinator and back, which takes its latency
    assert timed(problem, Slicing((1, 2))).seconds == pytest.approx(3.2 + 0.2)


def test_partial_sums_go_to_who_adds_them_and_their_gradient_back():
    flows = [
        Flow("stem", (), (1,), (0,)),
        Flow("stem", (), (1,), (1,)),
        Flow("a", (0,), (4,), (1,)),
        Flow("a", (0,), (2,), (), True),
    ]
    problem = toy([("a", 3.0), ("a", 6.0)], flows, [PLAIN] * 3)
    found = timed(problem, Slicing((1, 2)))
    # to 1 by 1, to 2 by 2, computed by 4, partial sum there by 8, sum at the owner by 10, its gradient
    # back by 12, at 2 by 16, done by 20, at the owner by 21
    assert found.seconds == 21
    kinds = {each.kind: each.nbytes for each in found.kinds}
    assert kinds["partial_sum"] == 4 and kinds["gradient"] == 2 + 4 + 1 + 1
    assert sum(kinds.values()) == volume(problem, Slicing((1, 2)))


def random_case(seed):
    """Layers of blocks under any tiling, with skips, on unequal devices."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 7))
    devices = [
        Device(
            speed=float(rng.uniform(1, 9)),
            up=float(rng.uniform(1, 9)),
            down=float(rng.uniform(1, 9)),
            latency=float(rng.uniform(0, 2)),
        )
        for _ in range(count)
    ]
    vertices, flows, layers = [], [], []
    for number in range(int(rng.integers(1, 5))):
        mine = tuple(range(len(vertices), len(vertices) + int(rng.integers(1, 5))))
        vertices += [(f"l{number}", float(rng.integers(0, 30))) for _ in mine]
        layers.append(mine)
    reduced = [bool(rng.integers(2)) and len(mine) > 1 for mine in layers]
    for number, mine in enumerate(layers):
        made = mine[:1] if reduced[number] else mine
        if reduced[number]:
            flows.append(Flow(f"l{number}", mine[:1], (int(rng.integers(1, 9)),), mine[1:]))
        numbers = tuple(int(n) for n in rng.integers(1, 9, len(made)))
        if number == 0:
            for part in [mine] if rng.integers(2) else [(target,) for target in mine]:
                flows.insert(0, Flow("stem", (), (int(rng.integers(1, 9)),), part))
        if number + 1 < len(layers):
            later = layers[number + 1]
            if number + 2 < len(layers) and rng.integers(2):
                later += layers[number + 2][:1]  # a skip
            flows.append(Flow(f"l{number}", made, numbers, later, bool(rng.integers(4) == 0)))
        else:
            flows.append(Flow(f"l{number}", made, numbers, (), True))
    parts = rng.integers(0, 4, count)
    parts[int(rng.integers(count))] += 1
    shares = [Fraction(int(part), int(parts.sum())) for part in parts]
    problem = toy(
        vertices,
        flows,
        devices,
        int(rng.integers(1, 9)),
        shares,
        owner_flops=30.0,
        owner_parameters=5,
    )
    return problem, Slicing(tuple(int(host) for host in rng.integers(0, count, len(vertices))))


@pytest.mark.parametrize("seed", range(60))
def test_it_is_the_twins_step(seed):
    problem, slicing = random_case(seed)
    found = timed(problem, slicing, tail_flops=12.0, coordinator=Device(up=2.0, down=3.0))
    twin = Twin(problem, slicing, found.rows, 12.0, Device(up=2.0, down=3.0)).run()
    assert found.seconds == pytest.approx(twin.end, rel=1e-12)
    for name in ("flops", "busy", "sent", "received"):
        assert getattr(found, name) == pytest.approx(getattr(twin, name)[:-1], rel=1e-12)
    exact = replace(problem, shares=tuple(Fraction(n, problem.batch) for n in found.rows))
    traffic = {each.kind: each.nbytes for each in found.kinds if not each.kind.startswith("owner")}
    assert sum(traffic.values()) == pytest.approx(
        float(volume(exact, slicing) * problem.batch), rel=1e-12
    )
    spent = problem.batch * (sum(v.flops for v in problem.vertices) + problem.owner_flops)
    assert found.flops.sum() == pytest.approx(spent, rel=1e-12)


def test_rows_of_a_typical_step_are_shares_of_the_batch_to_within_one():
    rng = np.random.default_rng(0)
    for batch in (1, 7, 64):
        parts = [int(n) for n in rng.integers(0, 20, 50)]
        shares = [Fraction(part, sum(parts)) for part in parts]
        rows = typical_rows(toy([], [], [PLAIN] * 50, batch, shares))
        assert sum(rows) == batch
        assert all(abs(n - share * batch) < 1 for n, share in zip(rows, shares, strict=True))
    spread = typical_rows(toy([], [], [PLAIN] * 1000, 4, [Fraction(1, 1000)] * 1000))
    assert np.flatnonzero(spread).tolist() == [125, 375, 625, 875]


def test_faster_lines_and_devices_never_hurt_a_chain():
    flows = [
        Flow("stem", (), (2,), (0,)),
        Flow("a", (0,), (3,), (1,)),
        Flow("b", (1,), (5,), (), True),
    ]
    problem = toy([("a", 9.0), ("b", 12.0)], flows, [PLAIN] * 3, owner_parameters=4)
    before = timed(problem, Slicing((1, 2))).seconds
    for better in ({"speed": 2.0}, {"up": 2.0, "down": 2.0}):
        faster = replace(problem, devices=(replace(PLAIN, **better),) * 3)
        assert timed(faster, Slicing((1, 2))).seconds < before
    late = replace(problem, devices=(replace(PLAIN, latency=1.0),) * 3)
    assert (
        timed(late, Slicing((1, 2))).seconds == before + 6 + 1
    )  # 6 hops, half of 2 with the coordinator


def test_what_cannot_be_timed_is_refused():
    flows = [Flow("a", (0,), (1,), (1,)), Flow("b", (1,), (1,), (0,))]
    circle = toy([("a", 1.0), ("b", 1.0)], flows, [PLAIN])
    with pytest.raises(PluginError, match="2 of 2 vertices"):
        timed(circle, Slicing((0, 0)))
    with pytest.raises(UsageError, match=r"sum to 3; expected .* 1 rows together"):
        timed(circle, Slicing((0, 0)), rows=[3])
    with pytest.raises(UsageError, match="tail_flops=1"):
        timed(circle, Slicing((0, 0)), tail_flops=1.0)
