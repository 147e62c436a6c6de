"""The leakage map: its numbers, its names for a page, its refusals, a thousand devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from privbench.errors import UsageError
from privbench.report.crowd import Block
from privbench.report.plots import leakage_map
from privbench.report.plots.facts import Scale
from privbench.report.report import Names, Report
from privbench.scoring.score import Score


def gids(report: Report, **others: Report) -> set[str]:
    figure = leakage_map(report, **others).figure
    return {gid for artist in figure.findobj() if (gid := artist.get_gid())}


def threat(report: Report, name: str, *scores: Score) -> Report:
    names = replace(report.names, threat=name)
    return replace(report, names=names, scores=scores)


def test_the_numbers_are_the_reports(host: Report) -> None:
    table = leakage_map(host).numbers
    devices = table[table["kind"] == "device"].set_index("name")
    assert host.crowd
    for score in host.scores[:4]:
        row = devices.loc[score.seat]
        for name in ("value", "low", "high", "blind", "n", "metric"):
            assert row[name] == getattr(score, name)
        assert row["verdict"] == score.verdict()
    assert devices.loc["device-0", "layers"] == "a"
    assert devices.loc["device-3", "units"] == 2
    assert devices.loc["device-1", ["flops", "flops_budget", "memory", "memory_budget"]].tolist() == [
        10, 20, 30, 40,
    ]  # fmt: skip
    sent = sum(each.nbytes for each in host.crowd.traffic if "device-1" in (each.one, each.other))
    assert devices.loc["device-1", "bytes_per_sample"] == sent
    assert len(table) == 4 + 6


def test_every_part_has_a_name_for_the_page(host: Report, rate: Callable[..., Score]) -> None:
    coordinator = threat(host, "coordinator", rate("coordinator", 0.4))
    found = gids(host, coordinator=coordinator)
    for number in range(4):
        assert {f"device-{number}", f"device-{number}-label", f"block-{number}"} <= found
    assert {"link-0-1", "link-2-3", "coordinator"} <= found


def test_links_and_coordinator_carry_their_scores(host: Report, rate: Callable[..., Score]) -> None:
    links = threat(host, "link", rate("device-0–device-1", 0.7), rate("device-3–device-2", 0.001))
    drawing = leakage_map(host, links, threat(host, "coordinator", rate("coordinator", 0.4)))
    table = drawing.numbers.set_index("name")
    assert table.loc["device-0–device-1", "value"] == 0.7
    assert table.loc["device-2–device-3", "verdict"] == "not shown to leak"
    assert table.loc["device-0–device-2", "verdict"] == "not attacked"
    assert table.loc["coordinator", "value"] == 0.4
    assert "Links are grey" not in drawing.caption


def test_a_verdict_shows_without_colour(host: Report) -> None:
    scores = (host.scores[0], replace(host.scores[1], value=0.002, low=0.0, high=0.1))
    edges = {
        patch.get_gid(): (patch.get_linewidth(), patch.get_linestyle(), patch.get_hatch())
        for axes in leakage_map(replace(host, scores=scores)).figure.axes
        for patch in axes.patches
    }
    assert len({edges["device-0"], edges["device-1"], edges["device-2"]}) == 3
    assert edges["device-2"][2]
    assert edges["block-0"] == edges["device-0"]


def test_the_caption_names_the_worst(host: Report) -> None:
    caption = leakage_map(host).caption
    assert "Device 0 sees most" in caption
    assert "90 % of the private records" in caption
    assert "guessing gives 0.2 %" in caption


def test_what_cannot_be_drawn_is_refused_with_the_way_out(
    host: Report, lira: Report, rate: Callable[..., Score]
) -> None:
    with pytest.raises(UsageError, match="regime=slicenet threat=host"):
        leakage_map(lira)
    with pytest.raises(UsageError, match="threat=host or threat=owner"):
        leakage_map(threat(host, "wire", rate("wire", 0.9)))
    with pytest.raises(UsageError, match="score of each device"):
        leakage_map(replace(host, status="failed", scores=()))
    with pytest.raises(UsageError, match="one goal"):
        leakage_map(host, coordinator=lira)


@pytest.mark.slow
def test_a_thousand_devices_are_drawn_in_time(crowd: Callable[..., Report]) -> None:
    report = crowd(1000, links=5000)
    start = time.perf_counter()
    drawing = leakage_map(report)
    text = drawing.svg()
    assert time.perf_counter() - start < 10
    assert len(text) < 2_000_000
    assert all(f'data-gid="device-{number}"' in text for number in range(1000))
    assert (drawing.numbers["kind"] == "link").sum() == 200
    assert "Of 5000 links the 200" in drawing.caption
    assert "Only the devices that see most and least are named." in drawing.caption


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_without_a_number_are_drawn_as_such(value: float, host: Report) -> None:
    scores = tuple(replace(each, value=value, low=value, high=value) for each in host.scores)
    assert leakage_map(replace(host, scores=scores)).svg()
    drawing = leakage_map(replace(host, scores=(scores[0], *host.scores[1:])))
    assert "Device" in drawing.caption
    assert drawing.svg()


def test_odd_crowds_are_drawn(host: Report, crowd: Callable[..., Report]) -> None:
    assert host.crowd
    strange = replace(
        host.crowd,
        blocks=(*host.crowd.blocks, Block("日本 $x$", "b", 0, "input"), Block("日本", "gone", 3, "output")),
        stages=host.crowd.stages * 6,
    )  # fmt: skip
    found = gids(replace(host, crowd=strange))
    assert {"x", "party-5"} <= found
    assert leakage_map(replace(host, crowd=replace(host.crowd, traffic=()))).svg()
    assert leakage_map(crowd(1)).svg()
    assert leakage_map(crowd(48)).svg()


def test_other_metrics_have_a_scale_of_their_own(rate: Callable[..., Score]) -> None:
    unit = Scale.of([rate("a", 0.7, "auc", 0.5)])
    assert (unit.blind, unit.top) == (0.5, 1.0)
    error = Scale.of([rate("a", 0.1, "mse", 0.4)])
    assert (error.blind, error.top) == (0.4, 0.0)
    decibels = Scale.of([rate("a", 20.0, "psnr_db", 9.0), rate("b", 30.0, "psnr_db", 10.0)])
    assert decibels.top == 30.0
    assert unit.colour(None) is None
    assert unit.colour(rate("a", math.nan)) is None
    assert Scale("auc", 0.5, 1.0).colour(rate("a", 0.1, "auc")) == unit.colour(
        rate("a", 0.5, "auc")
    )


def test_a_custom_goal_is_drawn_by_its_first_metric(host: Report) -> None:
    names = Names(goal="audit", regime="slicenet", threat="host")
    scores = tuple(replace(each, goal="audit", metric="eps_$lower_") for each in host.scores)
    drawing = leakage_map(replace(host, names=names, scores=scores))
    assert drawing.numbers["metric"].dropna().unique().tolist() == ["eps_$lower_"]
    assert drawing.svg()
