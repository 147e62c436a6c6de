"""TensorBoard: one folder a run, that TensorBoard reads from disk; no account, no network."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from privbench.errors import StorageError
from privbench.sinks.base import Mirror, Sink
from privbench.sinks.rows import Plain, Row, png, row_of

STUDY = "study"
"""The folder of what belongs to all rows: figures, and the table of choices and scores."""


@dataclass(frozen=True, kw_only=True)
class TensorboardSink(Sink):
    """TensorBoard.

    Scores are scalars under the names of the other dashboards, in double precision; its HPARAMS tab is
    the table of choices and scores. It has no axis but the step, so ROC curves are figures.
    """

    name: ClassVar[str] = "tensorboard"
    package: ClassVar[str] = "tensorboard"

    def publish(self, mirror: Mirror) -> str:
        """Write event files, in place of those of the same runs."""
        place = mirror.place(self.name)
        rows = [row_of(report) for report in mirror.reports]
        try:
            for row, folder in zip(rows, _folders(rows), strict=True):
                _write_row(row, _emptied(place / folder))
            _write_study(mirror, rows, _emptied(place / STUDY))
        except OSError as cause:
            raise StorageError(f"cannot write '{place}': {cause}") from cause
        count = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
        command = f"tensorboard --logdir {shlex.quote(str(place))}"
        return f"tensorboard: {count} in {place}; to look: {command}"


def _folders(rows: Sequence[Row]) -> list[str]:
    """A folder a run, named as people know it; the key tells runs of one name apart."""
    plain = [re.sub(r"[^\w.=-]+", "-", row.name)[:80] for row in rows]
    return [
        name if plain.count(name) == 1 and name != STUDY else f"{name}-{row.key[:6]}"
        for name, row in zip(plain, rows, strict=True)
    ]


def _emptied(folder: Path) -> Path:
    """The folder, without what was shown before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_row(row: Row, folder: Path) -> None:
    """Scores as scalars, words as text, and this run's line of the table."""
    from tensorboard.plugins.hparams import summary_v2
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        choices = {name: value for name, value in row.choices.items() if name != "fingerprint"}
        choices["status"] = row.summary["status"]
        writer.file_writer.add_summary(summary_v2.hparams_pb(choices, trial_id=row.key))
        for name, value in row.summary.items():
            if isinstance(value, str):
                writer.add_text(name, value)
            else:
                writer.add_scalar(name, value, new_style=True, double_precision=True)


def _write_study(mirror: Mirror, rows: Sequence[Row], folder: Path) -> None:
    """Which columns the table of runs has, and the figures."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import summary_v2
    from torch.utils.tensorboard import SummaryWriter

    names = dict.fromkeys(name for row in rows for name in row.choices if name != "fingerprint")
    metrics = dict.fromkeys(n for row in rows for n, v in row.summary.items() if _headline(n, v))
    with SummaryWriter(str(folder)) as writer:
        columns = [summary_v2.HParam(name) for name in (*names, "status")]
        shown = [summary_v2.Metric(name) for name in metrics]
        writer.file_writer.add_summary(summary_v2.hparams_config_pb(columns, shown))
        for name, figure in mirror.figures(mirror.images).items():
            image = Summary.Image(encoded_image_string=png(figure), colorspace=4)
            value = Summary.Value(tag=f"figures/{name}", image=image)
            writer.file_writer.add_summary(Summary(value=[value]))


def _headline(name: str, value: Plain) -> bool:
    """Is it a column of the table: the score of a goal, or a fact, rather than an interval or a seat?"""
    return not isinstance(value, str) and name.count("/") <= 2
