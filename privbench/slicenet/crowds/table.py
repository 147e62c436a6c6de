"""A crowd from a table of the user's."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from math import isfinite
from pathlib import Path

from privbench.errors import UnknownName, UsageError
from privbench.slicenet.crowd import FLAGS, RATES, Crowd, Device

COLUMNS = (*(each.name for each in fields(Device)), "count")
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
MOST = 1_000_000  # devices: a slip of the keyboard must not fill the memory
EXAMPLE = "name,count,compute,memory,up,down"


@dataclass(frozen=True, kw_only=True)
class Table(Crowd):
    """Devices from a CSV file: a line of column names, then a line a device.

    Columns are the fields of ``Device`` and ``count`` (how many such devices); those that are not
    there take the defaults of ``Device``. Read when the crowd is made, so that the same file under
    another content is another crowd.

    Args:
        path: the file, UTF-8, commas between columns.

    Raises:
        UsageError: the file is missing, empty or no text, or a cell is not what its column takes;
            the message has file, line, column, what was found and what was expected.
        UnknownName: a column that ``Device`` does not have.
    """

    path: str = ""
    devices: tuple[Device, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "devices", _read(self.path))
        super().__post_init__()

    def members(self) -> tuple[Device, ...]:
        """The devices, by number: in the order of the lines."""
        return self.devices


def _read(path: str) -> tuple[Device, ...]:
    if not path:
        raise UsageError("crowd=table needs crowd.path=FILE.csv, one line a device")
    file = Path(path).expanduser()
    found: list[Device] = []
    rows = _rows(file)
    header = next(rows, None)
    if header is None:
        raise UsageError(f"'{file}' is empty; expected a line of column names, such as {EXAMPLE}")
    _check_header(file, header)
    names = [name.strip() for name in header.cells]
    for row in rows:
        if len(row.cells) != len(names):
            raise UsageError(
                f"'{file}', line {row.line}: found {len(row.cells)} cells; expected {len(names)}, "
                f"one for each of {', '.join(names)}"
            )
        cells = dict(zip(names, (cell.strip() for cell in row.cells), strict=True))
        count = _count(file, row.line, cells.pop("count", "1"))
        if len(found) + count > MOST:
            raise UsageError(f"'{file}', line {row.line}: more than {MOST} devices so far")
        found += [_device(file, row.line, cells)] * count
    if not found:
        raise UsageError(f"'{file}' has column names and no devices; add a line for each device")
    return tuple(found)


@dataclass(frozen=True)
class _Row:
    line: int
    cells: list[str]


def _rows(file: Path) -> Iterator[_Row]:
    """Lines that are not blank, with their numbers."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield _Row(reader.line_num, cells)
    except FileNotFoundError as cause:
        raise UsageError(
            f"crowd.path='{file}': there is no such file; type crowd.path=FILE.csv, relative to the "
            f"folder '{Path.cwd()}' or from its root"
        ) from cause
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise UsageError(
            f"crowd.path='{file}' cannot be read: {cause}; expected a text file with commas between "
            "columns (UTF-8), not a spreadsheet or a pickle"
        ) from cause


def _check_header(file: Path, header: _Row) -> None:
    names = [name.strip() for name in header.cells]
    for name in names:
        if name not in COLUMNS:
            near = get_close_matches(name, COLUMNS, n=1)
            meant = f", did you mean '{near[0]}'?" if near else ""
            commas = " (columns are separated by commas)" if ";" in name or "\t" in name else ""
            raise UnknownName(
                f"'{file}', line {header.line}: there is no column '{name}'{meant}{commas}; expected "
                f"some of {', '.join(COLUMNS)}"
            )
        if names.count(name) > 1:
            raise UsageError(
                f"'{file}', line {header.line}: column '{name}' stands there {names.count(name)} "
                "times; expected once"
            )


def _device(file: Path, line: int, cells: dict[str, str]) -> Device:
    """The device of one line; every cell is checked where its place can still be named."""
    numbers = {
        name: _number(file, line, name, cell)
        for name, cell in cells.items()
        if name not in (*FLAGS, "name")
    }
    flags = {name: _flag(file, line, name, cells[name]) for name in FLAGS if name in cells}
    return Device(name=cells.get("name", ""), **numbers, **flags)  # type: ignore[arg-type]


def _number(file: Path, line: int, column: str, cell: str) -> float:
    least = "above 0" if column in RATES else "of at least 0"
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and value >= 0) or (column in RATES and value == 0):
        default = getattr(Device, column)
        raise _wrong(file, line, column, cell, f"a number {least}, for example {default:g}")
    return value


def _flag(file: Path, line: int, column: str, cell: str) -> bool:
    if cell.lower() not in WORDS:
        raise _wrong(file, line, column, cell, "true or false")
    return WORDS[cell.lower()]


def _count(file: Path, line: int, cell: str) -> int:
    if not (cell.isascii() and cell.isdigit() and int(cell) > 0):
        raise _wrong(file, line, "count", cell, "a whole number of at least 1")
    return int(cell)


def _wrong(file: Path, line: int, column: str, cell: str, expected: str) -> UsageError:
    found = f"'{cell}'" if cell else "nothing"
    return UsageError(
        f"'{file}', line {line}, column '{column}': found {found}; expected {expected}, or leave the "
        "column out for the default"
    )
