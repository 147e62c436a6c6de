"""Adult: who earns more than 50,000 dollars a year?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from privbench.data.filed import Decoded, Fetched
from privbench.data.openml import Listed
from privbench.data.packed import needed, unpacked
from privbench.errors import DataError

NUMBERS: Mapping[int, tuple[str, int, int]] = {
    0: ("age", 17, 90),
    2: ("fnlwgt", 12_285, 1_490_400),
    4: ("education-num", 1, 16),
    10: ("capital-gain", 0, 99_999),
    11: ("capital-loss", 0, 4_356),
    12: ("hours-per-week", 1, 99),
}
"""Column, name, and range over the whole data set."""

WORDS: Mapping[int, tuple[str, str]] = {
    1: (
        "workclass",
        "Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov Without-pay "
        "Never-worked ?",
    ),
    3: (
        "education",
        "Bachelors Some-college 11th HS-grad Prof-school Assoc-acdm Assoc-voc 9th 7th-8th 12th "
        "Masters 1st-4th 10th Doctorate 5th-6th Preschool",
    ),
    5: (
        "marital-status",
        "Married-civ-spouse Divorced Never-married Separated Widowed Married-spouse-absent "
        "Married-AF-spouse",
    ),
    6: (
        "occupation",
        "Tech-support Craft-repair Other-service Sales Exec-managerial Prof-specialty "
        "Handlers-cleaners Machine-op-inspct Adm-clerical Farming-fishing Transport-moving "
        "Priv-house-serv Protective-serv Armed-Forces ?",
    ),
    7: ("relationship", "Wife Own-child Husband Not-in-family Other-relative Unmarried"),
    8: ("race", "White Asian-Pac-Islander Amer-Indian-Eskimo Other Black"),
    9: ("sex", "Female Male"),
    13: (
        "native-country",
        "United-States Cambodia England Puerto-Rico Canada Germany Outlying-US(Guam-USVI-etc) India "
        "Japan Greece South China Cuba Iran Honduras Philippines Italy Poland Jamaica Vietnam Mexico "
        "Portugal Ireland France Dominican-Republic Laos Ecuador Taiwan Haiti Columbia Hungary "
        "Guatemala Nicaragua Scotland Thailand Yugoslavia El-Salvador Trinadad&Tobago Peru Hong "
        "Holand-Netherlands ?",
    ),
}
"""Column, name, and the words that occur; ``?`` = not known."""

COLUMNS = len(NUMBERS) + len(WORDS)
INCOME = ("<=50K", ">50K")


@dataclass(frozen=True, kw_only=True)
class Adult(Fetched):
    """32,561 + 16,281 people of the U.S. census of 1994; inputs ``(n, 108)``, 2 classes.

    Class 0 earns at most 50,000 dollars a year, class 1 more.

    All 14 attributes in their order: 6 numbers, scaled to [0, 1] by their range over the whole data
    set, and 8 words as one column a word, of which one is 1; not known is a word of its own. No record
    is left out.

    Source: Becker, Kohavi: Adult, 1996, https://doi.org/10.24432/C5XW20. Licence: CC BY 4.0.
    """

    name: ClassVar[str] = "adult"
    folders: ClassVar[tuple[str, ...]] = ("adult",)
    files: ClassVar[str] = "adult.data and adult.test (plain, .gz or .xz)"
    listed: ClassVar[Listed] = Listed(
        1590,
        "adult",
        4,
        "fd2d5f7968a3274eaf2e7d36f1cd765c",
        "2c0077685728e75049266afda7c1a406",
        16_281,
    )

    @classmethod
    def read(cls, folder: Path) -> Decoded:
        """From the two original files."""
        return Decoded.joined(
            *(_read(needed(folder, f"adult.{part}")) for part in ("data", "test"))
        )

    @classmethod
    def decode(cls, inputs: np.ndarray, labels: np.ndarray) -> Decoded:
        """From 14 columns of numbers and words, where a missing word is None or NaN."""
        rows = [
            [
                _word(value) if column in WORDS else str(float(value))
                for column, value in enumerate(row)
            ]
            for row in inputs
        ]
        return encoded(rows, [_word(label) for label in labels], "OpenML")


def encoded(rows: Sequence[Sequence[str]], incomes: Sequence[str], where: str) -> Decoded:
    """Records from fields of text.

    Args:
        rows: 14 fields each.
        incomes: ``<=50K`` or ``>50K`` each.
        where: what they were read from, for messages.

    Raises:
        DataError: a field holds what the data set does not.
    """
    fields = list(zip(*rows, strict=True))
    blocks = [
        _number(fields[column], *NUMBERS[column], where)
        if column in NUMBERS
        else _one_hot(fields[column], *WORDS[column], where)
        for column in range(COLUMNS)
    ]
    labels = _one_hot(incomes, "income", " ".join(INCOME), where).argmax(axis=1)
    return Decoded(np.concatenate(blocks, axis=1, dtype=np.float32), labels)


def _read(file: Path) -> Decoded:
    try:
        lines = unpacked(file).decode("ascii").splitlines()
    except UnicodeDecodeError as cause:
        raise DataError(
            f"'{file}' is no plain text ({cause}); expected Adult as UCI has it"
        ) from cause
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("|"):
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != COLUMNS + 1:
            raise DataError(
                f"line {number} of '{file}' has {len(fields)} fields; expected {COLUMNS + 1} with "
                "commas between: it is damaged, cut short, or another file"
            )
        rows.append(fields)
    if not rows:
        raise DataError(f"'{file}' holds no record; get it anew")
    return encoded(
        [row[:-1] for row in rows], [row[-1].removesuffix(".") for row in rows], f"'{file}'"
    )


def _number(fields: Sequence[str], name: str, low: int, high: int, where: str) -> np.ndarray:
    try:
        values = np.array([float(field) for field in fields])
    except ValueError as cause:
        raise DataError(f"{where}: {name} holds what is no number ({cause})") from cause
    strange = ~((values >= low) & (values <= high))
    if strange.any():
        raise DataError(
            f"{where}: {name} is {fields[int(strange.argmax())]} in record "
            f"{int(strange.argmax()) + 1}; expected {low} to {high}"
        )
    return ((values - low) / (high - low))[:, None]


def _one_hot(fields: Sequence[str], name: str, words: str, where: str) -> np.ndarray:
    known = {word: place for place, word in enumerate(words.split())}
    places = np.array([known.get(field, -1) for field in fields])
    if (places < 0).any():
        record = int((places < 0).argmax())
        raise DataError(
            f"{where}: {name} is '{fields[record]}' in record {record + 1}; expected one of "
            f"{', '.join(known)}"
        )
    return np.eye(len(known))[places]


def _word(value: object) -> str:
    """A word as the original files have it; missing ones are None, or NaN, which differs from itself."""
    return "?" if value is None or value != value else str(value).strip(" '\"")
