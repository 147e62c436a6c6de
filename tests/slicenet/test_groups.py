"""Who is dealt to which replica, what that asks of devices, and what it costs."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from crowds import trained
from replicated import (
    NET,
    SHAPE,
    TRAFFIC,
    cut,
    groups_of,
    regime,
    rows_by_replica,
)
from test_networks import NETS

from privbench.contract import HEADER_BYTES
from privbench.errors import BudgetError, UsageError
from privbench.slicenet.crowd import Device, Mixed, Uniform
from privbench.slicenet.groups import bill_of_groups, dealt, grouped, volume_of_groups
from privbench.slicenet.ledger import bill_of
from privbench.slicenet.problem import volume
from privbench.slicenet.replica_lines import parts_of
from privbench.slicenet.slicers.greedy import Greedy
from privbench.slicenet.slicers.hypergraph import Hypergraph
from privbench.slicenet.slicers.layerwise import Layerwise
from privbench.slicenet.slicers.random import Random
from privbench.slicenet.tiles import slices_of, tiles_of
from privbench.slicenet.trace import trace


def test_the_volume_is_the_mean_of_the_replicas():
    told = trained(regime(2, epochs=1, crowd=Uniform(devices=5)), NET, SHAPE)
    groups, problem = groups_of(told)
    payload = sum(m.nbytes - HEADER_BYTES for m in cut(told) if m.kind in TRAFFIC)
    records = sum(len(share) for share in told.population.shares)
    assert payload == volume_of_groups(groups) * records
    total = sum(each.nbytes for each in told.trained.topology.traffic)
    assert total == pytest.approx(float(volume_of_groups(groups)))
    one = grouped(problem, [12] * 5, Greedy(), 1)
    assert volume_of_groups(one) == volume(one[0].problem, one[0].slicing)


def test_a_bill_counts_every_replica_and_the_averages():
    told = trained(regime(2, epochs=1, every=3), NET, SHAPE)
    groups, problem = groups_of(told)
    bill = bill_of_groups(problem, groups, every=3)
    kinds = {each.kind: each.nbytes for each in bill.kinds}
    body = sum(vertex.parameters for vertex in problem.vertices)
    assert kinds["slice_weights"] == pytest.approx(2 * body * problem.element / 3)
    flops = 12 * (sum(vertex.flops for vertex in problem.vertices) + problem.owner_flops)
    assert sum(cost.flops for cost in bill.costs) == pytest.approx(flops)
    loads = told.trained.topology.loads
    assert [cost.memory for cost in bill.costs] == [load.memory for load in loads]
    crossing = kinds["activation"] + kinds["gradient"]
    assert crossing == pytest.approx(12 * float(volume_of_groups(groups)))
    alone = bill_of(problem, groups[0].slicing)
    assert 0 < bill.seconds < 2 * alone.seconds
    rare = bill_of_groups(problem, groups, every=300)
    assert rare.seconds < bill.seconds and rare.nbytes < bill.nbytes
    assert told.trained.topology.bills[0].regime == "slicenet"


@pytest.mark.parametrize(
    "slicer",
    [Greedy(), Layerwise(), Random(), pytest.param(Hypergraph(), marks=pytest.mark.slow)],
    ids=lambda slicer: type(slicer).__name__,
)
def test_every_device_keeps_its_budget_whatever_replica_it_is_in(slicer):
    told = trained(regime(3, crowd=Mixed(devices=9), slicer=slicer, epochs=1), NET, SHAPE)
    topology = told.trained.topology
    assert sorted(sum(topology.replicas, ())) == sorted(topology.parties[:-2])
    assert [load.party for load in topology.loads] == list(topology.parties[:-2])
    for load in topology.loads:
        assert load.flops <= load.flops_budget and load.memory <= load.memory_budget
    for number, part in enumerate(parts_of(topology)):
        graph = trace(told.trained.net.module(), SHAPE)
        tiles = tiles_of(graph, "output", 3)
        assert {p.party for p in part.slices} <= set(topology.replicas[number])
        assert [(p.layer, p.units) for p in part.slices] == [(t.layer, t.units) for t in tiles]


def test_no_step_asks_more_of_a_device_than_its_load():
    """Not even one whose rows all lie with one replica."""
    told = trained(regime(2, batch=2, crowd=Uniform(devices=4), epochs=1), NET, SHAPE, count=20)
    groups, _ = groups_of(told)
    assert any(max(rows) == 2 for rows in rows_by_replica(told).values())
    for group in groups:
        assert group.problem.batch == 2 and sum(group.problem.shares) == 1


def test_dealing_balances_hosts_then_compute_then_records():
    strong, weak = Device(compute=8.0), Device(compute=1.0)
    assert dealt([strong, weak, weak, strong], [1, 1, 1, 1], 2) == ((0, 1), (2, 3))
    idle = replace(weak, hosts=False)
    groups = dealt([strong, strong, idle, idle, idle, idle], [0, 0, 9, 1, 4, 4], 2)
    assert groups == ((0, 2), (1, 3, 4, 5))
    mere = replace(strong, owns=False)
    groups = dealt([mere, weak, mere, weak], [0, 5, 0, 5], 2)
    assert [sum((0, 5, 0, 5)[k] for k in group) for group in groups] == [5, 5]
    endless = Device(compute=float("inf"))
    assert dealt([endless] * 4, [1] * 4, 2) == ((0, 2), (1, 3))


def test_a_group_has_hosts_and_records_as_long_as_there_are_enough():
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        count = int(torch.randint(2, 12, (), generator=rng))
        hosts, owns = torch.rand(2, count, generator=rng) < 0.5
        devices = [Device(hosts=bool(h), compute=float(k % 3)) for k, h in enumerate(hosts)]
        records = [int(own) * (k % 4 + 1) for k, own in enumerate(owns)]
        enough = int(min(hosts.sum(), owns.sum()))
        for replicas in range(1, enough + 1):
            groups = dealt(devices, records, replicas)
            assert sorted(sum(groups, ())) == list(range(count))
            assert all(any(hosts[k] for k in group) for group in groups)
            assert all(any(records[k] for k in group) for group in groups)


def test_a_group_owns_its_part_of_the_records():
    told = trained(regime(2, epochs=1, crowd=Uniform(devices=5)), NET, SHAPE)
    groups, _ = groups_of(told)
    assert [group.share for group in groups] == [Fraction(3, 5), Fraction(2, 5)]
    pieces = sum(
        (
            slices_of(tiles_of(trace(told.trained.net.module(), SHAPE), "output", 3), g.slicing)
            for g in groups
        ),
        (),
    )
    assert pieces == told.trained.topology.slices


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"replicas": 0}, r"regime.replicas=0; expected a whole number of at least 1.*regime.replicas=1"),
        ({"replicas": 1.5}, r"regime.replicas=1.5; expected"),
        ({"every": 0}, r"regime.average_every=0; expected a whole number of at least 1 step"),
        ({"replicas": 7}, r"regime.replicas=7: of 6 devices 6 may host.*regime.replicas=6"),
        ({"crowd": Uniform(devices=6, hosts=1)}, r"of 6 devices 1 may host.*regime.replicas=1"),
        ({"crowd": Uniform(devices=6, owners=1)}, r"of 6 devices 1 hold records.*regime.replicas=1"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        trained(regime(**settings), NET, SHAPE)


def test_a_group_that_cannot_afford_the_network_is_refused():
    told = trained(regime(6, epochs=1), NET, SHAPE)
    small = Device(memory=0.9 * min(load.memory for load in told.trained.topology.loads))
    crowd = Uniform(devices=6, device=small)
    trained(regime(2, crowd=crowd, epochs=1), NET, SHAPE)
    with pytest.raises(BudgetError, match=r"replica 0 of 6 \(devices 0\): .*regime.replicas=5"):
        trained(regime(6, crowd=crowd), NET, SHAPE)


def test_batch_norm_is_refused():
    spec, shape = NETS["mobile"]
    with pytest.raises(UsageError, match=r"regime.replicas=2: 'norm' is a batch norm.*group norm"):
        trained(regime(), spec, shape)


@pytest.mark.slow
def test_the_table_of_the_page_is_what_its_code_prints(capsys):
    page = (Path(__file__).parents[2] / "docs" / "replicas.md").read_text(encoding="utf-8")
    exec(page.split("```python\n")[1].split("```")[0], {})  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    told = page.split("| all, kB |")[1].split("\n\n")[0].strip().splitlines()[1:]
    assert len(printed) == len(told) == 5
    for one, other in zip(printed, told, strict=True):
        numbers = [
            [float(n.replace(",", "")) for n in line.split("|")[1:-1]] for line in (one, other)
        ]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.1)  # slicers get better
