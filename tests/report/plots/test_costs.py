"""Figures of what training takes: losses, loads, bills, volumes of slicers."""

from dataclasses import replace

import pytest

from privbench.errors import UsageError
from privbench.report.crowd import Bill, Lost, Volume
from privbench.report.plots.costs import bills, loads, volumes
from privbench.report.plots.losses import losses
from privbench.report.plots.study import drawings

BILLS = (
    Bill("slicenet", 32, 2.0, 3.2e9, 6.4e6, 8.0, 1e6, 1e8),
    Bill("fedavg", 320, 30.0, 3.2e9, 1e6, 4.0, 2e6, 4e8),
)
VOLUMES = (
    Volume("hypergraph", 500.0, 4, chosen=True),
    Volume("layerwise", 1000.0, 3),
    Volume("metis", None, reason="no feasible slicing"),
)


@pytest.fixture
def paid(crowd):
    report = crowd(4)
    facts = replace(report.crowd, bills=BILLS, volumes=VOLUMES, lost=(Lost("rows", 3),))
    return replace(
        report, crowd=facts, target=replace(report.target, losses=(2.0, 1.0, 0.5), passes=6.0)
    )


def test_bills_are_drawn_for_a_thousand_samples(paid):
    drawing = bills(paid)
    rows = drawing.numbers.set_index("regime")
    assert rows.loc["slicenet"].tolist() == [62.5, 200.0, 250.0, 100.0]
    assert rows.loc["fedavg"].tolist() == [93.75, 3.125, 12.5, 10.0]
    assert "slicenet sends 200 kB a sample, fedavg 3.12 kB" in drawing.caption


def test_volumes_are_ranked_and_say_who_found_none(paid):
    drawing = volumes(paid)
    assert drawing.numbers["slicer"].tolist() == ["hypergraph", "layerwise", "metis"]
    assert "hypergraph: 50 % less than layerwise" in drawing.caption
    assert "metis found no slicing" in drawing.caption


def test_loads_name_the_fullest_device(paid, crowd):
    drawing = loads(paid)
    assert "4 of 4 devices host" in drawing.caption and "75 %" in drawing.caption
    many = loads(crowd(300, links=10))
    assert len(many.numbers) == 300 and "300 devices host" in many.caption


def test_losses_are_one_line_a_way_to_train(paid):
    other = replace(
        paid,
        names=replace(paid.names, regime="fedavg"),
        target=replace(paid.target, losses=(2.0, 1.5), passes=4.0),
    )
    drawing = losses([paid, paid, other])
    found = drawing.numbers.groupby("training")["passes"].apply(list).to_dict()
    assert found == {"slicenet": [1.0, 3.0, 5.0], "fedavg": [1.0, 3.0]}
    assert "slicenet ends lowest, at 0.5" in drawing.caption


def test_what_older_reports_lack_is_not_drawn(crowd):
    report = crowd(3)
    for make in (bills, volumes):
        with pytest.raises(UsageError):
            make(report)
    with pytest.raises(UsageError, match="no run here tells the losses"):
        losses([report])
    with pytest.raises(UsageError, match="regime=slicenet"):
        loads(replace(report, crowd=None))


def test_a_crowd_that_many_attack_is_drawn_once(paid):
    names = [
        each.name
        for each in drawings([paid, replace(paid, names=replace(paid.names, row="090-b"))])
    ]
    assert [n for n in names if n.startswith(("loads", "costs", "volumes", "losses"))] == [
        "losses", "volumes-080-host", "loads-080-host", "costs-080-host",
    ]  # fmt: skip
