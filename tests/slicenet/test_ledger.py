"""Who spends what: loads, links, and the bills of all regimes side by side."""

from collections import Counter, defaultdict
from dataclasses import replace
from fractions import Fraction
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch

from privbench.contract import HEADER_BYTES, Net, Samples, Spec
from privbench.data.population import Population
from privbench.data.truth import Truth
from privbench.errors import UsageError
from privbench.models.mlp import Mlp
from privbench.regimes.centralized import Centralized
from privbench.regimes.fedavg import FedAvg
from privbench.regimes.split import Split
from privbench.slicenet import ledger
from privbench.slicenet.clock import timed
from privbench.slicenet.compare import Work, centralized_bill, fedavg_bill, split_bill
from privbench.slicenet.crowd import Device
from privbench.slicenet.ledger import bill_of, loads_of, traffic_of
from privbench.slicenet.problem import Flow, Problem, Slicing, Vertex, volume
from privbench.wire.wire import Wire

PLAIN = Device(speed=1.0, up=1.0, down=1.0, latency=0.0, energy_per_flop=2.0, energy_per_byte=10.0)
FAST = replace(PLAIN, speed=10.0, up=10.0, down=10.0)


def layered(devices, blocks=12, seed=0):
    """Three layers of blocks, each needing the whole layer before it, thrown onto a crowd."""
    rng = np.random.default_rng(seed)
    vertices = tuple(Vertex(f"l{n // blocks}", 100.0, 10, 5) for n in range(3 * blocks))
    one, two, three = (tuple(range(n * blocks, (n + 1) * blocks)) for n in range(3))
    flows = (
        Flow("stem", (), (40,), one),
        Flow("l0", one, (3,) * blocks, two),
        Flow("l1", two, tuple(int(n) for n in rng.integers(1, 9, blocks)), three),
        Flow("l2", three, (2,) * blocks, (), True),
    )
    parts = rng.integers(0, 5, devices)
    problem = Problem(
        vertices=vertices,
        flows=flows,
        devices=(Device(),) * devices,
        shares=tuple(Fraction(int(part), int(parts.sum())) for part in parts),
        batch=16,
        own_rows=(16,) * devices,
        element=4,
        state=1,
        owner_flops=50.0,
        owner_parameters=20,
        owner_output=8,
    )
    hosts = rng.choice(devices, len(vertices), replace=devices < len(vertices))
    return problem, Slicing(tuple(int(host) for host in hosts))


def every_link(problem, slicing):
    """Block by block and device by device, whatever the size of the crowd."""
    found = defaultdict(Fraction)
    for flow in problem.flows:
        users = {slicing.hosts[target] for target in flow.targets}
        for owner, share in enumerate(problem.shares):
            pairs = [(owner, device, sum(flow.numbers)) for device in users if not flow.sources]
            if flow.to_owners:
                made = zip(flow.sources, flow.numbers, strict=True)
                pairs += [(owner, slicing.hosts[source], count) for source, count in made]
            for one, other, count in pairs:
                found["owners", one, other] += share * count * (one != other)
        for source, count in zip(flow.sources, flow.numbers, strict=False):
            for device in users - {slicing.hosts[source]}:
                ends = sorted([slicing.hosts[source], device])
                found["hosts", *ends] += count
    return found


def test_small_crowds_have_a_link_for_each_pair():
    problem, slicing = layered(9)
    expected = Counter()
    for (_, one, other), count in every_link(problem, slicing).items():
        expected[min(one, other), max(one, other)] += float(2 * 4 * count)
    found = {(each.one, each.other): each.nbytes for each in traffic_of(problem, slicing)}
    named = {(f"device-{a}", f"device-{b}"): n for (a, b), n in expected.items() if n}
    assert found == pytest.approx(named)
    assert sum(found.values()) == pytest.approx(float(volume(problem, slicing)))


@pytest.mark.parametrize("devices", [257, 2000])
def test_owners_of_large_crowds_are_one_end_and_nothing_is_lost(devices):
    problem, slicing = layered(devices)
    found = traffic_of(problem, slicing)
    assert sum(each.nbytes for each in found) == pytest.approx(float(volume(problem, slicing)))
    assert len(found) <= ledger.KEPT + 2 * len(problem.vertices)
    by_host = Counter()
    for (kind, one, other), count in every_link(problem, slicing).items():
        if kind == "owners":
            by_host[f"device-{other}"] += float(2 * 4 * count)
        else:
            by_host[f"device-{one}", f"device-{other}"] += float(2 * 4 * count)
    owners = {each.other: each.nbytes for each in found if each.one == "owners"}
    hosts = {(each.one, each.other): each.nbytes for each in found if each.one != "owners"}
    assert owners == pytest.approx({name: n for name, n in by_host.items() if name in owners})
    assert hosts == pytest.approx({ends: n for ends, n in by_host.items() if ends in hosts})
    assert len(owners) + len(hosts) == sum(n > 0 for n in by_host.values())


@pytest.mark.parametrize("kept, pairs", [(5, 10**6), (5, 10)])
def test_the_largest_links_between_hosts_are_kept(monkeypatch, kept, pairs):
    problem, slicing = layered(300)
    whole = traffic_of(problem, slicing)
    monkeypatch.setattr(ledger, "KEPT", kept)
    monkeypatch.setattr(ledger, "PAIRS", pairs)
    found = traffic_of(problem, slicing)
    assert sum(e.nbytes for e in found) == pytest.approx(sum(e.nbytes for e in whole))
    single = [each.nbytes for each in found if each.one.startswith("device-")]
    largest = sorted(each.nbytes for each in whole if each.one.startswith("device-"))[-kept:]
    assert sorted(single) == (largest if pairs > 10 else [])
    assert any(each.one == "hosts" for each in found)


def test_a_bill_says_what_every_device_spends():
    problem, slicing = layered(6)
    bill = bill_of(problem, slicing, tail_flops=10.0)
    timing = timed(problem, slicing, tail_flops=10.0)
    assert [cost.party for cost in bill.costs] == list(problem.parties)
    assert [cost.memory for cost in bill.costs] == [x.memory for x in loads_of(problem, slicing)]
    assert (bill.seconds, bill.rows) == (timing.seconds, 16)
    for number, cost in enumerate(bill.costs):
        assert (cost.flops, cost.seconds) == (timing.flops[number], timing.busy[number])
        assert cost.joules == pytest.approx(1e-10 * cost.flops + 1e-7 * (cost.sent + cost.received))
    assert sum(cost.flops for cost in bill.costs) == pytest.approx(16 * (36 * 100 + 50))
    taking = sum(count > 0 for count in timing.rows)
    sent = sum(cost.sent for cost in bill.costs)
    assert bill.nbytes == pytest.approx(sent + taking * 20 * 4)  # new weights: the coordinator's


WORK = Work(flops=30.0, parameters=6, outputs=5, element=1, state=1)
STEM = Work(flops=8.0, parameters=2, outputs=3, element=1, state=1)


def kinds(bill):
    return {each.kind: each.nbytes for each in bill.kinds}


def test_centralized_by_hand():
    crowd = [PLAIN, PLAIN, PLAIN]
    bill = centralized_bill(WORK, crowd, [2, 0, 4], sample=5.0, batch=3, steps=10, server=FAST)
    assert kinds(bill) == {"samples": 3.0}
    assert [cost.sent for cost in bill.costs] == [1.0, 0.0, 2.0, 0.0]
    trainer = bill.costs[-1]
    assert (trainer.party, trainer.received, trainer.flops) == ("trainer", 3.0, 90.0)
    assert trainer.seconds == 9.0 and trainer.memory == 6 * 3 + 3 * 5
    assert trainer.joules == 2 * 90 + 10 * 3
    # device 0 sends 10 bytes from 0 to 10; its share of the trainer's line is 1 s; 2 sends 20 from 1
    assert bill.seconds == pytest.approx((1 + 20) / 10 + 9)


def test_federated_averaging_by_hand():
    bill = fedavg_bill(WORK, [PLAIN, PLAIN], [4, 0], batch=2, server=FAST)
    client, idle, server = bill.costs
    assert kinds(bill) == {"global_weights": 6.0, "update": 6.0}
    assert (client.flops, client.seconds, client.received, client.sent) == (120, 120, 6, 6)
    assert client.memory == 6 * 3 + 2 * 5 + 6 and server.memory == 12
    assert idle.flops == idle.memory == idle.joules == 0
    assert client.joules == 2 * 120 + 10 * 12
    assert bill.seconds == 6 + 120 + 6 + 2 * 6 / 10
    assert bill.rows == 4


def test_split_learning_by_hand():
    bill = split_bill(
        WORK, STEM, [PLAIN, replace(PLAIN, speed=2.0)], [3, 1], cut=7, batch=2, label=1, server=FAST
    )
    assert kinds(bill) == {"activation": 14.0, "gradient": 14.0, "labels": 2.0}
    slow = 8 + 14 + 2 + 44 / 10 + 14 + 8
    quick = slow - 8
    assert bill.seconds == pytest.approx(0.75 * slow + 0.25 * quick)
    one, other, server = bill.costs
    assert one.flops == 0.75 * 16 and other.flops == 0.25 * 16 and server.flops == 44
    assert one.sent == 0.75 * 16 and one.received == 0.75 * 14 and server.received == 16
    assert one.memory == 2 * 3 + 2 * 3 and server.memory == (18 + 10) - one.memory


class Private:
    """Sixty records of nine numbers, and a network of two layers and a tail on them."""

    net = Net(Spec("privbench.models.mlp.Mlp", {"widths": [9, 8, 6, 4]}))
    parameters = sum(p.numel() for p in Mlp([9, 8, 6, 4]).parameters())
    tensors = len(list(Mlp([9, 8, 6, 4]).parameters()))
    work = Work(flops=3.0 * 2 * (72 + 48 + 24) - 2 * 72, parameters=parameters, outputs=18)

    @staticmethod
    def trained(regime):
        rng = torch.Generator().manual_seed(0)
        train = Samples(torch.rand(60, 1, 3, 3, generator=rng), torch.arange(60) % 4)
        wire = Wire()
        people = Population(train, train, None, 4, Truth(train))
        done = regime.train(Private.net, people, wire, torch.Generator().manual_seed(1), "cpu")
        return done, wire


def test_bills_count_the_bytes_that_regimes_send():
    private, crowd = Private, [Device()] * 5
    done, wire = private.trained(FedAvg(clients=5, rounds=2, local_steps=1, batch=4, lr=0.1))
    bill = fedavg_bill(private.work, crowd, [4] * 5, batch=4)
    headers = 2 * 5 * private.tensors * HEADER_BYTES
    assert {kind: n - headers for kind, n in wire.bytes.items()} == {
        kind: 2 * n for kind, n in kinds(bill).items()
    }
    assert sum(cost.flops for cost in bill.costs[:-1]) / bill.rows == done.flops_per_sample

    done, wire = private.trained(Split(epochs=1, batch=12, lr=0.1))
    stem = Work(flops=2.0 * 2 * 72, parameters=80, outputs=8)
    bill = split_bill(private.work, stem, crowd, [12] * 5, cut=8, batch=12)
    assert {kind: n - 5 * HEADER_BYTES for kind, n in wire.bytes.items()} == {
        kind: 5 * n for kind, n in kinds(bill).items()
    }
    assert sum(cost.flops for cost in bill.costs) / bill.rows == pytest.approx(
        done.flops_per_sample
    )

    _, wire = private.trained(Centralized(epochs=1, batch=12, lr=0.1))
    sample = 4 * prod((1, 3, 3)) + 8
    bill = centralized_bill(private.work, crowd, [12] * 5, sample=sample, batch=12, steps=5)
    assert sum(wire.bytes.values()) - 10 * HEADER_BYTES == pytest.approx(5 * kinds(bill)["samples"])


def test_ten_thousand_devices_get_their_bills():
    crowd = [Device()] * 10_000
    for bill in (
        centralized_bill(WORK, crowd, [3] * 10_000, sample=5.0, batch=64, steps=100),
        fedavg_bill(WORK, crowd, [4] * 10_000, batch=2),
    ):
        assert len(bill.costs) == 10_001
        assert sum(cost.sent for cost in bill.costs) == pytest.approx(bill.nbytes)
        assert sum(cost.received for cost in bill.costs) == pytest.approx(bill.nbytes)


def test_bills_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match=r"2 numbers of records that sum to 3"):
        fedavg_bill(WORK, [PLAIN], [1, 2], batch=1)
    with pytest.raises(UsageError, match=r"not all 0"):
        split_bill(WORK, STEM, [PLAIN], [0], cut=1, batch=1)
    with pytest.raises(UsageError, match=r"steps=0; expected at least 1"):
        centralized_bill(WORK, [PLAIN], [1], sample=1.0, batch=1, steps=0)


def test_the_example_of_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "crowds.md").read_text(encoding="utf-8")
    exec(page.split("```python\n")[1].split("```")[0], {})  # noqa: S102
    seconds, nbytes, memory = map(float, capsys.readouterr().out.split())
    assert nbytes == 2 * 10 * 4e7 and memory == 4 * (2e7 + 10 * 2e5) + 4e7
    assert seconds > 50 * 1e9 / 5.6e9 + 4e7 / 0.75e6  # the slowest client's own work
