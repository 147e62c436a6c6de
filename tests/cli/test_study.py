"""Studies and sweeps: exit codes, rows on disk, interruption."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra

from privbench import experiment
from privbench.cli import main
from privbench.compose.launch import folder_of
from privbench.compose.words import Words
from privbench.errors import AttackError, TrainingError
from privbench.plan import Plan
from privbench.report.report import Report
from privbench.report.study import StudyTable

WORDS = ["-m", "attack=loss_threshold", "seed=1,2", "workers=1"]
SWEEP = "sweep+attack=loss_threshold+seed=1,2"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Plan], Report]], None]:
    """Put another carrying-out of a row in the place of the real one."""
    return lambda fake: monkeypatch.setattr(experiment, "run_row", fake)


def _not_applicable(plan: Plan) -> Report:
    return Report(plan.names, "not_applicable", "for the test")


def test_every_row_is_in_the_table_in_order(tmp_path: Path, rows, capsys) -> None:
    seeds = []

    def _row(plan: Plan) -> Report:
        seeds.append(plan.seed)
        return _not_applicable(plan)

    rows(_row)
    assert main([*WORDS, f"out={tmp_path}"]) == 0
    assert seeds == [1, 2]
    assert len(pd.read_csv(tmp_path / "studies" / SWEEP / "table.csv")) == 2
    told = capsys.readouterr()
    assert [line.rsplit(" ", 2)[0] for line in told.err.splitlines()] == [
        "[1/2] seed=1",
        "[2/2] seed=2",
    ]
    assert "sweep over seed: how much each seat learns" in told.out
    assert not GlobalHydra.instance().is_initialized()


def test_a_failed_row_is_a_row_and_the_exit_code_says_so(tmp_path: Path, rows) -> None:
    def _row(plan: Plan) -> Report:
        if plan.seed == 2:
            raise ZeroDivisionError("a bug of a stranger")
        return _not_applicable(plan)

    rows(_row)
    assert main([*WORDS, f"out={tmp_path}"]) == 3
    table = pd.read_csv(tmp_path / "studies" / SWEEP / "table.csv")
    assert list(table["status"]) == ["not_applicable", "failed"]
    assert table["reason"][1] == "ZeroDivisionError: a bug of a stranger"


def test_a_row_whose_plan_cannot_be_made_is_a_row(tmp_path: Path, rows) -> None:
    rows(_not_applicable)
    assert main(["-m", "threat=hosts,api", "threat.fraction=0.5", f"out={tmp_path}"]) == 3
    (folder,) = (tmp_path / "studies").iterdir()
    table = pd.read_csv(folder / "table.csv")
    assert list(table["status"]) == ["not_applicable", "failed"]
    assert "no setting 'fraction'" in table["reason"][1]


def test_what_every_row_would_fail_for_is_said_once(tmp_path: Path, rows, capsys) -> None:
    rows(_not_applicable)
    assert main([f"out={tmp_path}", "data=arrays", "data.path=nowhere.npz"]) == 1
    assert "nowhere.npz" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_some_rows_of_a_study(tmp_path: Path, rows) -> None:
    ran = []

    def _row(plan: Plan) -> Report:
        ran.append(plan.names.row)
        return _not_applicable(plan)

    rows(_row)
    assert (
        main(["study=membership", "rows=04,*gradient_match", "workers=1", f"out={tmp_path}"]) == 0
    )
    assert [row[:3] for row in ran] == ["040", "041", "042", "078"]
    assert (tmp_path / "studies" / "membership+rows=04,-gradient_match" / "table.csv").exists()


def test_a_row_that_a_study_has_not(tmp_path: Path, rows, capsys) -> None:
    rows(_not_applicable)
    assert main(["study=membership_core", "rows=011", f"out={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert "rows=011 is none of study=membership_core" in said
    assert "010-centralized-released-lira" in said
    assert not list(tmp_path.iterdir())


def test_an_interrupted_study_says_how_to_go_on(tmp_path: Path, rows, capsys) -> None:
    def _row(plan: Plan) -> Report:
        if plan.seed == 2:
            raise KeyboardInterrupt
        return _not_applicable(plan)

    rows(_row)
    assert main([*WORDS, f"out={tmp_path}", "again=true"]) == 130
    assert f"privbench {' '.join(WORDS)} out={tmp_path}\n" in capsys.readouterr().err
    assert len(list((tmp_path / "studies" / SWEEP / "rows").iterdir())) == 1


def test_a_glob_that_matches_nothing_is_refused(tmp_path: Path, rows, capsys) -> None:
    rows(_not_applicable)
    assert main(["-m", "attack=glob(zz*)", f"out={tmp_path}"]) == 2
    assert "matches nothing" in capsys.readouterr().err


def test_a_parallel_launcher_can_send_the_callback_to_its_workers(tmp_path: Path) -> None:
    sent = pickle.dumps(StudyTable(str(tmp_path), "compare", jobs=3))
    assert b"StudyTable" in sent


def test_an_unwritable_folder_is_named(tmp_path: Path, rows, capsys) -> None:
    rows(_not_applicable)
    (tmp_path / "file").write_text("in the way")
    assert main([*WORDS, f"out={tmp_path / 'file'}"]) == 1
    assert "choose another with out=" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("failed", 1), ("not_applicable", 2)])
def test_exit_codes_of_one_run(
    status: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(experiment, "run", lambda plan: Report(plan.names, status, "a reason"))
    assert main(["attack=loss_threshold", f"out={tmp_path}"]) == code
    assert capsys.readouterr().out.startswith("one run (regime=centralized, ")


def test_a_failed_run_shows_its_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _run(plan: Plan) -> Report:
        raise TrainingError("it diverged")

    monkeypatch.setattr(experiment, "run", _run)
    assert main(["attack=loss_threshold"]) == 1
    assert capsys.readouterr().err == "privbench: it diverged\n"
    assert main(["attack=loss_threshold", "debug=true"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_other_words_write_another_table(tmp_path: Path, rows) -> None:
    rows(_not_applicable)
    for words in (WORDS, [*WORDS, "workers=2"], [*WORDS, "victims=7"], ["-m", "seed=1,2", "x"]):
        main([*words, f"out={tmp_path}"])
    found = sorted(folder.name for folder in (tmp_path / "studies").iterdir())
    assert found == [SWEEP, f"{SWEEP}+victims=7"]


def test_a_long_name_of_a_launch_is_cut_and_stays_its_own() -> None:
    one, other = (
        folder_of(Words(tuple(f"attack.setting_{i}={i}" for i in range(last)))) for last in (20, 21)
    )
    assert one != other
    assert max(len(one), len(other)) < 120


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("threads=0", "threads=0; expected a whole number, at least 1"),
        ("seed=abc", "seed=abc; expected"),
        ("seed=99999999999999999999999", "expected a whole number"),
        ("capture.every=0", "capture.every=0; expected"),
        ("capture.first=-3", "capture.first=-3; expected"),
        ("seal=open", "expected process or inline"),
        ("report.images=perhaps", "report.images=perhaps; expected true or false"),
        ("sink.wandb.mode=online", "add it: sink=[wandb]"),
        ("model=null", "there is no model 'null'"),
        ("~attack", "choose another: attack="),
    ],
)
def test_words_that_no_row_could_use_run_nothing(
    word: str, said: str, tmp_path: Path, rows, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(_not_applicable)
    assert main([word, f"out={tmp_path}"]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_unforeseen_is_one_line_too(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    def _run(plan: Plan) -> Report:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(experiment, "run", _run)
    assert main(["attack=loss_threshold"]) == 1
    said = capsys.readouterr().err
    assert "RuntimeError: shapes differ" in said and "Traceback" not in said
    assert main(["attack=loss_threshold", "debug=true"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_what_broke_inside_a_seal_is_shown_when_asked(
    monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _run(plan: Plan) -> Report:
        error = AttackError("attack Mine failed")
        error.traceback = "File mine.py, line 7\n"
        raise error

    monkeypatch.setattr(experiment, "run", _run)
    assert main(["attack=loss_threshold", "debug=true"]) == 1
    assert "File mine.py, line 7" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_on_another_launcher_are_rows(tmp_path: Path) -> None:
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "regime.epochs=1"]
    assert main([*WORDS, *words, f"out={tmp_path}"]) == 0
    (folder,) = (tmp_path / "studies").iterdir()
    table = pd.read_csv(folder / "table.csv")
    assert set(table["status"]) == {"ok"}
    assert set(table["seed"]) == {1, 2}
