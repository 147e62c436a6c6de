"""A report on disk and as table rows."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from privbench.errors import StorageError
from privbench.report import report as module
from privbench.report.columns import COLUMNS
from privbench.report.index import slim
from privbench.report.report import Report, SeatFacts, write_whole
from privbench.report.rows import rows_of
from privbench.scoring.score import Score

PUBLISHED = (
    "study, row, data, model, regime, defense, threat, column, seat, seats, attack, variant, goal, "
    "metric, value, low, high, over, n, n_negative, blind, blind_name, reliable, by_construction, "
    "verdict, status, reason, pairs, n_pairs, rows_seen, steps_seen, capture, recorded, "
    "accuracy, bytes_per_sample, flops_per_sample, epsilon, delta, epsilon_covers, shadow_models, queries, "
    "sealed, train_seconds, attack_seconds, seed, threads, device, fingerprint, against_blind, depth, "
    "share_seen, epochs_seen, coalition, power"
)
"""People's scripts read these: a changed name breaks them."""


def test_the_columns_are_those_that_were_published(report: Report) -> None:
    assert ", ".join(COLUMNS) == PUBLISHED
    assert ", ".join(report.table().columns) == PUBLISHED


def test_it_comes_back_from_disk_whole(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "run")
    again = Report.load(tmp_path / "run" / "report.json")
    assert again == report
    (kept,), (first,) = again.pictures, report.pictures
    assert kept.seat == first.seat
    for part in ("true", "guess", "blind"):
        assert np.array_equal(getattr(kept, part), getattr(first, part))
    table = pd.read_csv(tmp_path / "run" / "table.csv")
    assert ", ".join(table.columns) == PUBLISHED
    assert len(table) == 2
    assert not [file for file in (tmp_path / "run").iterdir() if file.name.startswith(".")]


def test_pictures_lie_in_a_file_of_their_own(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path)
    file = tmp_path / "pictures.safetensors"
    assert "pictures" not in json.loads((tmp_path / "report.json").read_text())
    assert Report.load(tmp_path / "report.json", pictures=False).pictures == ()
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(StorageError, match=r"no whole pictures.*again=true"):
        Report.load(tmp_path / "report.json")
    replace(report, pictures=()).save(tmp_path)
    assert not file.exists()
    assert Report.load(tmp_path / "report.json").pictures == ()


def test_numbers_that_are_none_come_back(report: Report, tmp_path: Path) -> None:
    odd = replace(report.scores[0], blind=math.nan, low=math.inf)
    replace(report, scores=(odd,)).save(tmp_path)
    (again,) = Report.load(tmp_path / "report.json").scores
    assert math.isnan(again.blind)
    assert again.low == math.inf


@pytest.mark.parametrize("what", ["cut", "empty", "list", "field", "no format", "missing"])
def test_a_damaged_report_is_refused_with_the_way_out(
    what: str, report: Report, tmp_path: Path
) -> None:
    report.save(tmp_path)
    file = tmp_path / "report.json"
    facts = json.loads(file.read_text())
    if what == "cut":
        file.write_text(file.read_text()[:200])
    elif what == "empty":
        file.write_text("")
    elif what == "list":
        file.write_text("[]")
    elif what == "missing":
        file.unlink()
    elif what == "field":
        file.write_text(json.dumps({**facts, "surprise": 1}))
    else:
        file.write_text(json.dumps({k: v for k, v in facts.items() if k != "format"}))
    with pytest.raises(StorageError, match=r"again=true"):
        Report.load(file)


def test_a_report_of_another_format_is_refused(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path)
    file = tmp_path / "report.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(StorageError, match="has report format 99, this privbench reads 2"):
        Report.load(file)


def test_a_file_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.json"
    write_whole(file, "old")
    write = Path.write_text

    def _full(self: Path, text: str, *args: object, **kwargs: object) -> int:
        write(self, text[:1])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", _full)
    with pytest.raises(OSError, match="no space"):
        write_whole(file, "new")
    assert file.read_text() == "old"


def test_the_table_is_written_before_the_report_that_says_it_is_done(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(module, "write_whole", lambda file, text: written.append(file.name))
    report.save(tmp_path)
    assert written == ["table.csv", "report.json"]


@pytest.mark.skipif(os.name == "nt", reason="files stand in the way otherwise there")
def test_an_unwritable_folder_names_the_option(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="out=FOLDER"):
        report.save(tmp_path / "file" / "run")


def test_one_row_a_score_and_one_a_refusal(report: Report) -> None:
    score, refusal = report.table().to_dict("records")
    assert (score["status"], score["verdict"], score["seats"]) == ("ok", "leaks", 2)
    assert (refusal["status"], refusal["verdict"]) == ("not_applicable", "not applicable")
    assert refusal["seats"] == 3
    assert refusal["reason"].startswith("it needs pairs")
    for row in (score, refusal):
        assert row["regime"] == "slicenet"
        assert row["accuracy"] == 0.9
        assert row["fingerprint"] == "0123456789abcdef"


def test_references_are_never_rows(report: Report) -> None:
    assert "psnr_db" not in set(report.table()["metric"].dropna())


def test_what_seats_do_not_share_is_not_said_of_all_of_them(report: Report) -> None:
    row = report.table().iloc[0]
    assert row["column"] == "infrastructure"  # that of the worst seat
    assert row["pairs"] == "mixed"
    assert pd.isna(row["n_pairs"])
    assert row["steps_seen"] == 3
    alike = (SeatFacts("device-0", "peer", "own", 5), SeatFacts("device-1", "peer", "own", 5))
    row = replace(report, seats=alike).table().iloc[0]
    assert (row["pairs"], row["n_pairs"]) == ("own", 5)


def test_facts_of_one_seat_stand_beside_its_score(report: Report, score: Score) -> None:
    one = replace(report, scores=(replace(score, seat="device-1"),))
    row = one.table().iloc[0]
    assert (row["column"], row["pairs"], row["n_pairs"]) == ("peer", "own", 12)


@pytest.mark.parametrize(
    ("status", "verdict"), [("failed", "failed"), ("not_applicable", "not applicable")]
)
def test_a_run_without_scores_is_one_row(report: Report, status: str, verdict: str) -> None:
    (row,) = Report(report.names, status, "because").table().to_dict("records")
    assert (row["status"], row["reason"], row["verdict"]) == (status, "because", verdict)
    assert row["attack"] == "ridge_decoder"


def test_a_row_that_is_anothers_says_so(report: Report) -> None:
    same = replace(report, status="same_as", reason="equal to centralized", refusals=())
    (row,) = same.table().to_dict("records")
    assert (row["status"], row["verdict"]) == ("same_as", "as centralized")
    assert row["value"] == 0.75


def test_no_noise_is_an_infinite_epsilon_also_from_disk(report: Report, tmp_path: Path) -> None:
    """JSON has no word for it, and table rows of stored runs are numbers."""
    endless = replace(report, target=replace(report.target, epsilon=math.inf))
    endless.save(tmp_path)
    again = Report.load(tmp_path / "report.json")
    assert again.target.epsilon == math.inf
    assert rows_of([again])["epsilon"].to_pylist()[0] == math.inf
    assert slim(tmp_path / "report.json").target.epsilon == math.inf
