"""All runs below a folder, and a study's rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from privbench.errors import StorageError
from privbench.report.folder import gather, table_of, write_table
from privbench.report.report import Report
from privbench.report.study import StudyTable, finish, rows_of, save_row, study_folder


def _named(report: Report, row: str, fingerprint: str, seed: int = 0) -> Report:
    names, run = replace(report.names, row=row), replace(report.run, fingerprint=fingerprint)
    return replace(report, names=names, run=replace(run, seed=seed))


def test_runs_are_gathered_in_the_studys_order(report: Report, tmp_path: Path) -> None:
    wanted = [("010", 0), ("010", 1), ("020", 0)]
    for number, (row, seed) in enumerate(reversed(wanted)):
        _named(report, row, f"print{number}", seed).save(tmp_path / f"{number}" / "deep")
    found = gather(tmp_path)
    assert [(one.names.row, one.run.seed) for one in found.reports] == wanted
    assert found.damaged == ()


def test_a_studys_copy_counts_once_but_unstored_rows_all_count(
    report: Report, tmp_path: Path
) -> None:
    for folder in ("runs/abc", "studies/compare/rows/0000-x"):
        _named(report, "010", "abc").save(tmp_path / folder)
    for folder in ("rows/1", "rows/2"):  # failed before they had a fingerprint
        _named(report, "020", "").save(tmp_path / folder)
    assert [one.names.row for one in gather(tmp_path).reports] == ["010", "020", "020"]


def test_damaged_and_foreign_files_are_told_and_stop_nothing(
    report: Report, tmp_path: Path
) -> None:
    report.save(tmp_path / "good")
    for name, text in (("cut", '{"format": 1, "na'), ("foreign", '{"tool": "another"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(text)
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "report.json").write_bytes(b"\xff\xfe\x00")
    found = gather(tmp_path)
    assert len(found.reports) == 1
    assert len(found.damaged) == 3
    for sentence, name in zip(found.damaged, ("binary", "cut", "foreign"), strict=True):
        assert name in sentence


def test_nothing_to_gather_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"expected report\.json files$"):
        gather(tmp_path)
    with pytest.raises(StorageError, match="there is no folder"):
        gather(tmp_path / "nowhere")
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(StorageError, match="1 damaged"):
        gather(tmp_path)


def test_a_table_of_many_has_every_row_in_order(report: Report, tmp_path: Path) -> None:
    failed = Report(replace(report.names, row="b"), "failed", "because")
    reports = (_named(report, "a", "1"), failed, _named(report, "c", "2"))
    assert list(table_of(reports)["row"]) == ["a", "a", "b", "c", "c"]
    write_table(reports, tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv")
    assert list(read["status"]) == ["ok", "not_applicable", "failed", "ok", "not_applicable"]


def test_a_failed_row_keeps_its_place_in_the_study(report: Report, tmp_path: Path) -> None:
    failed = Report(replace(report.names, row="2/odd name"), "failed", "because")
    save_row(_named(report, "10", "c"), study_folder(tmp_path, "compare"), 10)
    save_row(failed, study_folder(tmp_path, "compare"), 2)
    save_row(_named(report, "1", "a"), study_folder(tmp_path, "compare"), 1)
    assert [one.names.row for one in rows_of(tmp_path, "compare")] == ["1", "2/odd name", "10"]


def test_a_launch_forgets_the_rows_of_the_one_before(report: Report, tmp_path: Path) -> None:
    save_row(report, study_folder(tmp_path, "compare"), 5)
    StudyTable(str(tmp_path), "compare").on_multirun_start(None)
    assert rows_of(tmp_path, "compare") == ()
    save_row(report, study_folder(tmp_path, "compare"), 0)
    finish(tmp_path, "compare")
    assert len(pd.read_csv(study_folder(tmp_path, "compare") / "table.csv")) == 2


def test_a_study_without_rows_writes_no_empty_table(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="left no row"):
        finish(tmp_path, "compare")
