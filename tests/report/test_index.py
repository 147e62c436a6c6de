"""Rows kept beside the runs: the same as each report's own table, and never out of date."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from privbench.report import index as room
from privbench.report.columns import COLUMNS
from privbench.report.folder import gather, lines_of, table_of
from privbench.report.index import FILE, index, slim
from privbench.report.report import Refusal, Report
from privbench.report.rows import csv_of, rows_of


def _named(report: Report, fingerprint: str, **names: str) -> Report:
    run = replace(report.run, fingerprint=fingerprint)
    return replace(report, names=replace(report.names, **names), run=run)


def _kinds(report: Report) -> list[Report]:
    """A report of every shape: many seats, one, none, odd numbers."""
    score = report.scores[0]
    seats = [replace(score, seat="device-0"), replace(score, seat="device-1", value=math.nan)]
    return [
        report,
        replace(report, scores=(*seats, score, replace(score, seat="nobody"))),
        replace(report, seats=report.seats[:1], refusals=()),
        replace(report, seats=(), scores=(), refusals=(), status="failed", reason="it broke"),
        replace(report, status="same_as", reason="equal to centralized"),
        replace(report, scores=(), status="not_applicable"),
    ]


def _slow(reports: list[Report]) -> list[dict[str, object]]:
    return [row for report in reports for row in report.table().to_dict("records")]


def _same(rows: pa.Table, wanted: list[dict[str, object]]) -> bool:
    plain = lambda value: None if value is None or value != value else value
    found = rows.select(list(COLUMNS)).to_pylist()
    return [{k: plain(v) for k, v in row.items()} for row in found] == [
        {k: plain(v) for k, v in row.items()} for row in wanted
    ]


def test_rows_are_those_of_each_reports_own_table(report: Report) -> None:
    kinds = _kinds(report)
    assert _same(rows_of(kinds), _slow(kinds))


def test_stored_rows_are_those_of_the_reports(report: Report, tmp_path: Path) -> None:
    kinds = [_named(each, f"{i}", row=f"{i}") for i, each in enumerate(_kinds(report))]
    for i, each in enumerate(kinds):
        each.save(tmp_path / f"{i}")
    for _ in range(2):  # made, then kept
        found = gather(tmp_path)
        assert _same(found.reports.rows, _slow(kinds))
        assert [one.names for one in found.reports] == [one.names for one in kinds]
        assert lines_of(found.reports)["run"].to_pylist() == lines_of(kinds)["run"].to_pylist()
        assert table_of(found.reports).to_csv() == table_of(kinds).to_csv()


def test_table_csv_is_what_pandas_writes(report: Report) -> None:
    odd = replace(report, names=replace(report.names, row='a "b", c\n', data="ü"), refusals=())
    tiny = replace(report.scores[0], value=1e-5, low=-math.inf, n=0)
    for kinds in (_kinds(report), [odd], [report, replace(odd, scores=(tiny,))], []):
        assert csv_of(rows_of(kinds)) == table_of(kinds).to_csv(index=False)


def test_a_slim_report_has_the_same_table(report: Report, tmp_path: Path) -> None:
    for each in _kinds(report):
        each.save(tmp_path)
        assert slim(tmp_path / "report.json").table().to_csv() == each.table().to_csv()


def test_only_what_changed_is_read_again(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        _named(report, f"{i}").save(tmp_path / f"{i}")
    index(tmp_path)
    read = []
    monkeypatch.setattr(room, "slim", lambda file: read.append(file.parent.name) or slim(file))
    index(tmp_path)
    assert read == []
    _named(report, "1", model="other").save(tmp_path / "1")  # of the same size
    _named(report, "3").save(tmp_path / "3")
    (tmp_path / "0" / "report.json").unlink()
    rows = index(tmp_path).rows
    assert read == ["1", "3"]
    assert sorted(set(rows["fingerprint"].to_pylist())) == ["1", "2", "3"]
    assert set(rows["model"].to_pylist()) == {"mlp", "other"}
    assert set(pq.read_table(tmp_path / FILE)["path"].to_pylist()) == {
        f"{i}/report.json" for i in (1, 2, 3)
    }


def test_a_removed_run_uncovers_its_copy(report: Report, tmp_path: Path) -> None:
    for folder in ("runs/abc", "studies/compare/rows/0000-x"):
        report.save(tmp_path / folder)
    assert len(gather(tmp_path).reports) == 1
    (tmp_path / "runs/abc/report.json").unlink()
    found = gather(tmp_path)
    assert found.reports.files == (tmp_path / "studies/compare/rows/0000-x/report.json",)


@pytest.mark.parametrize("kind", ["garbage", "foreign", "old", "columns", "folder"])
def test_an_index_that_is_not_ours_is_made_anew(kind: str, report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "run")
    wanted = index(tmp_path).rows
    file = tmp_path / FILE
    table = pq.read_table(file)
    lying = table.set_column(
        table.schema.get_field_index("value"), "value", pa.nulls(len(table), pa.float64())
    )
    match kind:
        case "garbage":
            file.write_bytes(b"PAR1 no parquet")
        case "foreign":
            pq.write_table(lying.replace_schema_metadata(None), file)
        case "old":
            pq.write_table(lying.replace_schema_metadata({b"privbench": b"other code"}), file)
        case "columns":
            pq.write_table(lying.drop_columns(["note"]), file)
        case "folder":
            file.unlink()
            file.mkdir()
    assert index(tmp_path).rows.equals(wanted)


def test_a_folder_that_refuses_writing_is_read_all_the_same(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    report.save(tmp_path / "run")
    monkeypatch.setattr(pq, "write_table", refuse)
    assert index(tmp_path).rows.num_rows == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_damaged_files_are_told_again_and_under_the_folders_new_name(
    report: Report, tmp_path: Path
) -> None:
    report.save(tmp_path / "one" / "good")
    for name, text in (("cut", "{"), ("other", '{"format": 99}'), ("list", "[1]")):
        (tmp_path / "one" / name).mkdir()
        (tmp_path / "one" / name / "report.json").write_text(text)
    first = gather(tmp_path / "one").damaged
    assert gather(tmp_path / "one").damaged == first
    assert "has report format 99" in first[2]
    (tmp_path / "one").rename(tmp_path / "two")
    again = gather(tmp_path / "two").damaged
    assert again == tuple(
        line.replace(str(tmp_path / "one"), str(tmp_path / "two")) for line in first
    )


def test_a_value_of_another_kind_damages_its_file_alone(report: Report, tmp_path: Path) -> None:
    for name, place, value in (("a", "row", ["list"]), ("b", "row", "fine"), ("c", "goal", 7)):
        _named(report, name).save(tmp_path / name)
        facts = json.loads((tmp_path / name / "report.json").read_text())
        facts["names"][place] = value
        (tmp_path / name / "report.json").write_text(json.dumps(facts))
    found = gather(tmp_path)
    assert [one.names.row for one in found.reports] == ["fine"]
    assert len(found.damaged) == 2


def test_damaged_pictures_cost_the_pictures_alone(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "run")
    (tmp_path / "run" / "pictures.safetensors").write_bytes(b"cut")
    found = gather(tmp_path)
    assert found.damaged == ()
    assert found.reports[0] == report
    assert "holds no whole pictures" in found.reports.problems(0)[0]


def test_a_thousand_seats_take_no_time_that_grows_with_their_square(report: Report) -> None:
    score, seat = report.scores[0], report.seats[0]
    names = [f"device-{i}" for i in range(1000)]
    many = replace(
        report,
        scores=tuple(replace(score, seat=name) for name in names),
        seats=tuple(replace(seat, seat=name) for name in names),
        refusals=(Refusal("why", 2),),
    )
    rows = rows_of([many])
    assert rows.num_rows == 1001
    assert set(rows["seats"].to_pylist()) == {1000, 2}
    assert pd.unique(rows["column"].to_pandas()).tolist() == ["peer", ""]
