"""Curves along a knob, and the comparison of ways to slice: from table rows alone."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from privbench.errors import UsageError
from privbench.report.plots.along import KNOBS, along
from privbench.report.plots.slicing import slicing
from privbench.report.rows import SCHEMA

BASE = {
    "data": "fashion_mnist", "model": "lenet", "regime": "slicenet", "threat": "host",
    "attack": "ridge_decoder", "goal": "reconstruction", "seats": 1, "status": "ok",
    "verdict": "leaks", "bytes_per_sample": 54_000.0, "seat": "device-1",
}  # fmt: skip


def _rows(variant: str, likeness: float, **facts: Any) -> list[dict[str, Any]]:
    row = {**BASE, "row": variant, "variant": variant, **facts}
    psnr = {
        "metric": "psnr_db",
        "value": likeness,
        "low": likeness - 1,
        "high": likeness + 1,
        "blind": 11.5,
    }
    share = likeness / 30
    hits = {
        "metric": "identification",
        "value": share,
        "low": share / 2,
        "high": 1.0,
        "blind": 0.002,
    }
    return [{**row, **psnr}, {**row, **hits}]


def _lines(*rows: list[dict[str, Any]]) -> pa.Table:
    flat = [row for each in rows for row in each]
    columns = {name: [row.get(name) for row in flat] for name in SCHEMA.names}
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def test_a_line_for_each_attack_and_a_point_for_each_depth() -> None:
    rows = [_rows(f"depth_{k}", 26.0 - 3 * k, depth=k) for k in (1, 2, 3)]
    rows += [_rows(f"depth_{k}", 20.0 - 2 * k, depth=k, attack="inverse_network") for k in (1, 2)]
    (drawing,) = along(_lines(*rows), "depth")
    numbers = drawing.numbers
    assert drawing.name == "along-depth-fashion_mnist-lenet" and not drawing.private
    assert sorted(numbers["line"].unique()) == [
        "slicenet · host · inverse_network", "slicenet · host · ridge_decoder",
    ]  # fmt: skip
    own = numbers[(numbers["metric"] == "psnr_db") & numbers["line"].str.contains("ridge")]
    assert list(zip(own["x"], own["value"], strict=True)) == [(1, 23.0), (2, 20.0), (3, 17.0)]
    assert "23.0 dB at 1, 17.0 dB at 3; guessing 11.5 dB" in drawing.caption
    assert "guessing blind" in drawing.svg()


def test_draws_at_one_place_are_put_together_and_say_so() -> None:
    rows = [
        _rows(f"coalition_random_{n}_{d}", 12.0 + n + 4 * d, coalition=n)
        for n in (1, 3)
        for d in (0, 1)
    ]
    (drawing,) = along(_lines(*rows), "coalition")
    first = drawing.numbers.query("metric == 'psnr_db' and x == 1").iloc[0]
    assert (first["value"], first["low"], first["high"], first["seats"]) == (15.0, 12.0, 18.0, 2)
    assert first["line"].endswith("(random)") and "from the lowest end" in drawing.caption


def test_shares_are_those_of_the_shallowest_layer() -> None:
    rows = [_rows("share_input_2", 15.0, depth=1, share_seen=1 / 3)]
    rows += [_rows("share_input_3", 17.0, depth=1, share_seen=0.5)]
    rows += [_rows("share_input_3", 30.0, depth=2, share_seen=1.0, seat="device-2")]
    (drawing,) = along(_lines(*rows), "share")
    assert sorted(drawing.numbers["x"].unique()) == [0.333, 0.5]


@pytest.mark.parametrize("kind", KNOBS)
def test_one_point_is_no_curve(kind: str) -> None:
    point = {KNOBS[kind].column: 1.0 if kind == "share" else 1, "depth": 1}
    with pytest.raises(UsageError, match="two points"):
        along(_lines(_rows(f"{kind}_1", 20.0, **point)), kind)
    with pytest.raises(UsageError):
        along(_lines(_rows("other", 20.0, **point)), kind)


def test_other_data_have_figures_of_their_own() -> None:
    rows = [
        _rows(f"epochs_{n}", 14.0 + n, epochs_seen=n, data=data)
        for data in ("fashion_mnist", "cifar10")
        for n in (1, 2)
    ]
    assert [d.name for d in along(_lines(*rows), "epochs")] == [
        "along-epochs-fashion_mnist-lenet", "along-epochs-cifar10-lenet",
    ]  # fmt: skip


def test_ways_to_slice_stand_beside_the_control() -> None:
    rows = [_rows("ablation_two_parties", 24.0, regime="split", seat="split_server")]
    rows += [
        _rows(f"ablation_tiling_{tiling}", value + change, seat=seat)
        for tiling, value in (("output", 23.0), ("input", 18.0))
        for seat, change in (("worst", 0.0), ("median", -4.0), ("best", -6.0), ("device-1", 0.0))
    ]
    (drawing,) = slicing(_lines(*rows))
    assert set(drawing.numbers["seat"]) == {"worst", "median"}
    assert drawing.numbers["way"].iloc[0] == "two parties (control), 54 kB a sample"
    assert "least is rebuilt with tiling input, 54 kB a sample: 18.0 dB" in drawing.caption
    with pytest.raises(UsageError, match="no two rows"):
        slicing(_lines(rows[0]))
