"""Table rows of many runs, kept beside them as ``index.parquet`` and asked through DuckDB.

Reading 5,000 report.json takes seconds, so their rows are kept and only new or changed files are
read again. The index is a copy: one that is damaged, foreign or of other code is made anew, and
a folder that cannot be written does without.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from privbench.errors import StorageError
from privbench.report import report as report_room
from privbench.report import rows as rows_room
from privbench.report.report import FORMAT, Names, Refusal, Report, Run, SeatFacts, Target
from privbench.report.rows import SCHEMA, height, rows_of
from privbench.scoring import score as score_room
from privbench.scoring.score import Score

FILE = "index.parquet"


class Stamp(NamedTuple):
    """A file as it was read. Its inode changes whenever it is written whole."""

    path: str  # below the folder
    mtime_ns: int
    size: int
    inode: int


OWN = pa.schema(
    [
        pa.field("path", pa.string()),
        *(pa.field(name, pa.int64()) for name in Stamp._fields[1:]),
        pa.field("line", pa.int64()),  # place in its report's table
        pa.field("damaged", pa.string()),  # why the file has no rows; null where it has
    ]
)
INDEX = pa.schema([*OWN, *SCHEMA])
PARTS = frozenset(Report.__dataclass_fields__) - {"pictures"} | {"format"}
FOLDER = "{folder}"  # stands for the folder's name in kept sentences

SAME = f"SELECT was.* FROM was SEMI JOIN now USING ({', '.join(Stamp._fields)})"
TOLD = "SELECT damaged FROM kept JOIN found USING (path) WHERE damaged IS NOT NULL ORDER BY place"
ORDERED = """
WITH files AS (
  SELECT DISTINCT path, fingerprint, study, "row", seed, place
  FROM kept JOIN found USING (path) WHERE damaged IS NULL
), single AS (
  SELECT * FROM files QUALIFY coalesce(fingerprint, '') = ''
  OR row_number() OVER (PARTITION BY fingerprint ORDER BY place) = 1
), ordered AS (
  SELECT path, row_number() OVER (ORDER BY study, "row", seed, place) AS position FROM single
)
SELECT kept.* FROM kept JOIN ordered USING (path) ORDER BY position, line
"""
"""Of each fingerprint the first file, by study, row and seed."""


class Indexed(NamedTuple):
    """Rows below a folder (columns of ``INDEX``), and a sentence for each file without."""

    rows: pa.Table
    damaged: tuple[str, ...]


def index(folder: Path) -> Indexed:
    """Rows of every run below a folder, ordered; the index there is brought up to date."""
    found = _found(folder)
    was = _read(folder / FILE)
    with duckdb.connect() as base:
        base.register("was", was)
        base.register("now", _stamps(found))
        kept = base.sql(SAME).to_arrow_table().cast(INDEX)
        known = set(kept["path"].unique().to_pylist())
        fresh = [stamp for stamp in found if stamp.path not in known]
        if fresh:
            kept = pa.concat_tables([kept, *_rows(folder, fresh)])
        if found and (fresh or kept.num_rows < was.num_rows):
            _write(folder / FILE, kept)
        base.register("kept", kept)
        places = {"path": [stamp.path for stamp in found], "place": range(len(found))}
        base.register("found", pa.table(places))
        rows = base.sql(ORDERED).to_arrow_table().cast(INDEX)
        told = [str(line).replace(FOLDER, str(folder)) for (line,) in base.sql(TOLD).fetchall()]
    return Indexed(rows, tuple(told))


def _found(folder: Path) -> list[Stamp]:
    """Every report.json below, in the order of their paths' parts."""
    found = []
    for base, _, names in os.walk(folder):
        if "report.json" in names:
            file = Path(base, "report.json")
            facts = file.stat()
            path = file.relative_to(folder).as_posix()
            found.append(Stamp(path, facts.st_mtime_ns, facts.st_size, facts.st_ino))
    return sorted(found, key=lambda stamp: stamp.path.split("/"))


def _stamps(stamps: Sequence[Stamp]) -> pa.Table:
    columns = zip(*stamps, strict=True) if stamps else repeat((), len(Stamp._fields))
    kinds = [OWN.field(name) for name in Stamp._fields]
    return pa.Table.from_arrays(
        [pa.array(values, kind.type) for values, kind in zip(columns, kinds, strict=True)],
        schema=pa.schema(kinds),
    )


@functools.cache
def _code() -> bytes:
    """Digest of the code that makes rows: an index of other code is not asked."""
    files = [str(room.__file__) for room in (report_room, rows_room, score_room)]
    content = b"".join(Path(file).read_bytes() for file in (__file__, *files))
    return hashlib.sha256(content).hexdigest().encode()


def _read(file: Path) -> pa.Table:
    """The index as kept; empty where there is none of ours."""
    try:
        table = pq.read_table(file, partitioning=None)
    except (OSError, pa.ArrowException, ValueError):
        return INDEX.empty_table()
    ours = (table.schema.metadata or {}).get(b"privbench") == _code()
    if not ours or not table.schema.equals(INDEX, check_metadata=False):
        return INDEX.empty_table()
    return table.cast(INDEX)


def _write(file: Path, table: pa.Table) -> None:
    """Write the index whole; a folder that refuses has none."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        marked = table.replace_schema_metadata({b"privbench": _code()})
        pq.write_table(marked, beside, compression="zstd")
        beside.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _rows(folder: Path, stamps: Sequence[Stamp]) -> list[pa.Table]:
    """Rows of files, read now."""
    try:
        return _whole(folder, stamps)
    except TypeError:  # some value is of another kind than its column: find the files to blame
        tables = []
        for stamp in stamps:
            try:
                tables += _whole(folder, [stamp])
            except TypeError as cause:
                tables.append(_lost(folder, {stamp: _sentence(folder / stamp.path, cause)}))
        return tables


def _whole(folder: Path, stamps: Sequence[Stamp]) -> list[pa.Table]:
    """Rows of files whose values are of their columns' kinds; reports are dropped once read."""
    counts: dict[Stamp, int] = {}
    lost: dict[Stamp, str] = {}

    def read() -> Iterator[Report]:
        for stamp in stamps:
            try:
                report = slim(folder / stamp.path)
            except StorageError as error:
                lost[stamp] = str(error)
                continue
            counts[stamp] = height(report)
            yield report

    rows = rows_of(read())
    each = list(chain.from_iterable(repeat(stamp, count) for stamp, count in counts.items()))
    lines = pa.array(chain.from_iterable(map(range, counts.values())), pa.int64())
    own = [*_stamps(each), lines, pa.nulls(rows.num_rows, pa.string())]
    return [pa.Table.from_arrays([*own, *rows.columns], schema=INDEX), _lost(folder, lost)]


def _lost(folder: Path, told: Mapping[Stamp, str]) -> pa.Table:
    """A row for each damaged file, with its sentence."""
    sentences = [sentence.replace(str(folder), FOLDER) for sentence in told.values()]
    rows = _stamps(list(told))
    rows = rows.append_column(OWN.field("damaged"), pa.array(sentences, pa.string()))
    return pa.concat_tables([INDEX.empty_table(), rows], promote_options="default")


def slim(file: Path) -> Report:
    """A report without what no table shows: references, curves, losses, the crowd, pictures.

    Raises:
        StorageError: it is damaged, or of another format.
    """
    try:
        facts = json.loads(file.read_bytes())
        if facts["format"] != FORMAT or facts.keys() != PARTS:
            return Report.load(file, pictures=False)  # which knows what to say
        return Report(
            names=Names(**facts["names"]),
            status=facts["status"],
            reason=facts["reason"],
            scores=tuple(_score(score) for score in facts["scores"]),
            seats=tuple(SeatFacts(**seat) for seat in facts["seats"]),
            refusals=tuple(Refusal(**refusal) for refusal in facts["refusals"]),
            target=_target(facts["target"]),
            run=Run(**facts["run"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as cause:
        raise StorageError(_sentence(file, cause)) from cause


def _target(facts: Mapping[str, Any]) -> Target:
    """The same, without the losses."""
    numbers = {key: float(x) for key, x in facts.items() if x in ("inf", "nan")}
    return Target(**{**facts, **numbers, "losses": ()})


def _score(facts: Mapping[str, Any]) -> Score:
    """A score as stored, where words stand for numbers that JSON cannot say."""
    numbers = {name: float(facts[name]) for name in ("value", "low", "high", "blind")}
    return Score(**{**facts, **numbers})


def _sentence(file: Path, cause: Exception) -> str:
    return f"'{file}' is no whole report ({cause}): run it again with again=true"
