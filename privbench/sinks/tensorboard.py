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

    Scores are scalars under the names of the other dashboards; its HPARAMS tab is the table of choices and
    scores. Its scalars keep seven digits (its fast loader drops doubles), so the text ``all`` has every
    number whole. It has no axis but the step, so ROC curves are figures.
    """

    name: ClassVar[str] = "tensorboard"
    package: ClassVar[str] = "tensorboard"

    def publish(self, mirror: Mirror) -> str:
        """Write event files, in place of those of the same runs."""
        place = mirror.place(self.name)
        rows = [row_of(report) for report in mirror.reports]
        try:
            for row, name in zip(rows, _folders(rows), strict=True):
                _write_row(row, name, _emptied(place / name))
            _write_study(mirror, rows, _emptied(place / STUDY))
        except OSError as cause:
            raise StorageError(f"cannot write '{place}': {cause}") from cause
        count = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
        command = f"tensorboard --logdir {shlex.quote(str(place))}"
        return f"tensorboard: {count} in {place}; to look: {command}"


def _folders(rows: Sequence[Row]) -> list[str]:
    """A folder a run, named as people know it; the key tells runs of one name apart."""
    plain = [re.sub(r"[^\w.=-]+", "-", row.name)[:80].strip(".") or "run" for row in rows]
    return [
        name if plain.count(name) == 1 and name != STUDY else f"{name}-{row.key[:6]}"
        for name, row in zip(plain, rows, strict=True)
    ]


def _emptied(folder: Path) -> Path:
    """The folder, without what was shown before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_row(row: Row, name: str, folder: Path) -> None:
    """Scores as scalars, words as text, and this run's line of the table."""
    from tensorboard.plugins.hparams import summary_v2
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        line = summary_v2.hparams_pb(_choices(row), trial_id=name)
        writer.file_writer.add_summary(line)
        for tag, value in row.summary.items():
            if not isinstance(value, str):
                writer.add_scalar(tag, value)
        cells = "".join(f"| {tag} | {_cell(value)} |\n" for tag, value in row.summary.items())
        writer.add_text("all", f"| name | value |\n|---|---|\n{cells}")


def _write_study(mirror: Mirror, rows: Sequence[Row], folder: Path) -> None:
    """Which columns the table of runs has, and the figures."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import summary_v2
    from torch.utils.tensorboard import SummaryWriter

    said: dict[str, set[Plain]] = {}
    for row in rows:
        for name, choice in _choices(row).items():
            said.setdefault(name, set()).add(choice)
    tags = dict.fromkeys(tag for row in rows for tag, v in row.summary.items() if _headline(tag, v))
    with SummaryWriter(str(folder)) as writer:
        differ = [name for name, words in said.items() if len(words) > 1] or list(said)
        columns = [summary_v2.HParam(name) for name in differ]
        shown = [summary_v2.Metric(tag) for tag in sorted(tags, key=_scores_first)]
        writer.file_writer.add_summary(summary_v2.hparams_config_pb(columns, shown))
        for name, figure in mirror.figures(mirror.images).items():
            image = Summary.Image(encoded_image_string=png(figure), colorspace=4)
            value = Summary.Value(tag=f"figures/{name}", image=image)
            writer.file_writer.add_summary(Summary(value=[value]))


def _choices(row: Row) -> dict[str, Plain]:
    """What tells rows apart; a row's own name stands before its line."""
    choices = {k: v for k, v in row.choices.items() if k not in ("row", "fingerprint")}
    return {**choices, "status": row.summary["status"]}


def _cell(value: Plain) -> str:
    """A number to its last digit; words as they are, on one line."""
    return " ".join(str(value).replace("|", "/").split())


def _scores_first(tag: str) -> bool:
    return not tag.startswith("leakage/")


def _headline(name: str, value: Plain) -> bool:
    """Is it a column of the table: the score of a goal, or a fact, rather than an interval or a seat?"""
    return not isinstance(value, str) and name.count("/") <= 2
