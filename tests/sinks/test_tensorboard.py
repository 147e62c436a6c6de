"""What TensorBoard reads from the folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SECRET
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from privbench.errors import StorageError
from privbench.sinks.base import Mirror
from privbench.sinks.rows import row_of
from privbench.sinks.tensorboard import TensorboardSink


def _place(mirror: Mirror) -> Path:
    return mirror.folder / "sinks" / "tensorboard"


def _read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_scores_are_scalars_and_every_digit_is_text(mirror: Mirror) -> None:
    said = TensorboardSink().publish(mirror)
    assert (
        said
        == f"tensorboard: 4 runs in {_place(mirror)}; to look: tensorboard --logdir {_place(mirror)}"
    )
    found = _read(_place(mirror) / "020-lira")
    summary = row_of(mirror.reports[0]).summary
    numbers = {name: value for name, value in summary.items() if not isinstance(value, str)}
    assert set(found.Tags()["scalars"]) == set(numbers)
    for name, value in numbers.items():
        assert found.Scalars(name)[0].value == pytest.approx(value, rel=1e-6)
    text = found.Tensors("all/text_summary")[0].tensor_proto.string_val[0].decode()
    assert all(f"| {name} | {value} |" in text for name, value in summary.items())


def test_a_row_that_failed_is_a_folder_with_its_reason(mirror: Mirror) -> None:
    TensorboardSink().publish(mirror)
    found = _read(_place(mirror) / "086-broken")
    text = found.Tensors("all/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| reason | it went wrong / badly |" in text


def test_private_figures_are_drawn_only_when_asked_for(mirror: Mirror) -> None:
    TensorboardSink().publish(replace(mirror, images=True))
    drawn = _read(_place(mirror) / "study").Tags()["images"]
    assert drawn == ["figures/roc", "figures/reconstructions"]
    TensorboardSink().publish(mirror)
    assert _read(_place(mirror) / "study").Tags()["images"] == ["figures/roc"]
    files = [file for file in mirror.folder.rglob("*") if file.is_file()]
    assert not any(SECRET.encode() in file.read_bytes() for file in files)


def test_shown_again_a_run_is_replaced(mirror: Mirror) -> None:
    for _ in range(2):
        TensorboardSink().publish(mirror)
    assert len(list(_place(mirror).iterdir())) == len(mirror.reports) + 1
    assert all(len(list(folder.iterdir())) == 1 for folder in _place(mirror).iterdir())


def test_runs_of_one_name_have_folders_of_their_own(mirror: Mirror) -> None:
    names = replace(mirror.reports[0].names, row="../study")
    twins = [
        replace(
            mirror.reports[0], names=names, run=replace(mirror.reports[0].run, fingerprint=print_)
        )
        for print_ in "ab"
    ]
    TensorboardSink().publish(replace(mirror, reports=tuple(twins)))
    assert len(list(_place(mirror).iterdir())) == 3


def test_a_folder_that_cannot_be_made_is_said(mirror: Mirror) -> None:
    mirror.folder.mkdir()
    (mirror.folder / "sinks").write_text("a file")
    with pytest.raises(StorageError, match="expected a writable folder"):
        TensorboardSink().publish(mirror)
