"""The table on the screen: ten columns, one line a headline score, reasons below."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from privbench.contract.attack import covered
from privbench.report.columns import HEADLINES, SUMMARY
from privbench.report.report import Report, warnings_of

STYLE = {
    "claim broken": "bold red",
    "too weak to tell": "yellow",
    "leaks": "bold red",
    "by construction": "red",
    "failed": "bold magenta",
    "too few": "yellow",
}
SHORT = {"identification": "ident.", "evaluator_top1": "top-1", "label_accuracy": "labels"}
"""Headline metrics, as the screen names them."""
LIKENESS = {"psnr_db": ("Likeness", "{:.1f} dB"), "column_gain": ("Columns", "a gain of {:.2f}")}
"""Metrics that can be worse than guessing while records are told apart, which nobody should misread."""
OF_RECORDS = ("reconstruction",)
ALIKE = (
    "where the best seat lies above the worst, seats do not differ beyond chance: each is chosen on one half "
    "of the records and measured on the other"
)
TOO_FEW = (
    "fewer than 1,000 observations a side say nothing, whatever the bound: ask for more steps "
    "(regime.epochs) or canaries a step (regime.learning.canaries)"
)
MOST = 300  # lines of a table; thousands take the terminal longer to print than to compute
WIDTH = 156  # columns that ten cells need; a narrower screen wraps lines, a pipe gets them whole


def print_table(frame: pd.DataFrame, console: Console, title: str = "") -> None:
    """Print headline scores of table rows: one line a seat, or worst, median and best of many."""
    table = Table(
        title=title or None,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("regime", "threat", "attack", "seat"):
        table.add_column(name, overflow="fold", min_width=18 if name == "attack" else None)
    table.add_column("leakage [95 %]", no_wrap=True)
    for name in ("blind", "accuracy", "epsilon", "kB/sample"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    notes: list[str] = []
    likeness = _likeness(frame)
    previous = None
    lines = headlines(frame)
    seeds = lines["seed"].nunique() > 1
    for _, row in lines[:MOST].iterrows():
        if previous not in (None, row["regime"]):
            table.add_section()
        previous = row["regime"]
        table.add_row(*_cells(row, notes, seeds, likeness))
    wide = Console(
        file=console.file, width=max(console.width, WIDTH), force_terminal=console.is_terminal
    )
    wide.print(table)
    if len(lines) > MOST:
        console.print(f"and {len(lines) - MOST:,} lines more", highlight=False)
    if frame["seat"].isin(SUMMARY).any():
        console.print("worst, median, best: of all seats of that threat; the worst learns most")
        if _crossed(lines):
            console.print(ALIKE)
    for number, note in enumerate(notes, start=1):
        console.print(f"[{number}] {note}", markup=False, highlight=False)


def print_warnings(reports: Sequence[Report], console: Console) -> None:
    """What a reader should know before trusting the numbers, each sentence once."""
    everywhere = {report.names.regime for report in reports}
    for text, regimes in warnings_of(reports):
        where = "" if set(regimes) == everywhere else f" ({', '.join(regimes)})"
        console.print(f"warning{where}: {text}", markup=False, highlight=False, soft_wrap=True)


def as_text(report: Report) -> str:
    """A report's table and warnings as they are printed, without colours."""
    stream = io.StringIO()
    screen = Console(file=stream, width=WIDTH)
    print_table(report.table(), screen)
    print_warnings((report,), screen)
    return stream.getvalue()


def headlines(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows to print: the goal's headline metric, many seats summed up, refusals and failures."""
    if frame.empty:
        return frame
    head = frame["metric"].isna() | frame["metric"].isin(HEADLINES)
    many = frame["seats"].fillna(1) > 1
    summed = frame["seat"].isin(SUMMARY) | frame["metric"].isna()
    return frame[head & (~many | summed)]


def _crossed(lines: pd.DataFrame) -> bool:
    """Is anywhere the best seat above the worst? Each is chosen on one half, and measured on the other."""
    values = {
        (_seat(row)[:-1], row["metric"], row["seat"]): row["value"] for _, row in lines.iterrows()
    }
    return any(
        seat == "worst" and values.get((*where, "best"), value) > value
        for (*where, seat), value in values.items()
    )


def _likeness(frame: pd.DataFrame) -> dict[tuple[object, ...], str]:
    """Of each seat that rebuilt records, by run: a sentence where they are not like the originals."""
    told: dict[tuple[object, ...], str] = {}
    for _, row in frame[frame["metric"].isin(tuple(LIKENESS))].iterrows():
        if row["against_blind"] in ("worse than guessing", "not shown to beat guessing"):
            name, form = LIKENESS[row["metric"]]
            told[_seat(row)] = (
                f"{name}: {row['against_blind']}. What was rebuilt has {form.format(row['value'])}, "
                f"where the best guess without traffic has {form.format(row['blind'])}"
            )
    return told


def _seat(row: pd.Series) -> tuple[object, ...]:
    return row["row"], row["fingerprint"], row["attack"], row["variant"], row["seat"]


def _cells(
    row: pd.Series, notes: list[str], seeds: bool, likeness: dict[tuple[object, ...], str]
) -> list[str]:
    """The ten cells; a reason goes to the notes below the table, once."""
    verdict, style = str(row["verdict"]), STYLE.get(str(row["verdict"]))
    if verdict == "not shown to leak" and row["against_blind"] == "worse than guessing":
        verdict += ", worse than guessing"
    for note in (
        row["reason"],
        _few(row),
        likeness.get(_seat(row)) if row["goal"] in OF_RECORDS else None,
    ):
        if note:
            if note not in notes:
                notes.append(str(note))
            verdict += rf" \[{notes.index(str(note)) + 1}]"
    said = [str(row["variant"] or ""), f"seed {row['seed']}" if seeds else ""]
    variant = ", ".join(part for part in said if part)
    leakage, blind, seat = "–", "–", str(row["seat"]) if pd.notna(row["seat"]) else ""
    if pd.notna(row["value"]):
        metric = SHORT.get(row["metric"], row["metric"])
        leakage = rf"{metric} {row['value']:.3f} \[{row['low']:.3f}, {row['high']:.3f}]"
        if row["goal"] == "audit":
            power = _number(row["power"], ", power {:.2f}").removeprefix("–")
            leakage = f"epsilon at least {row['value']:.3f}{power}"
        blind = _number(row["blind"], "{:.3f}")
    elif pd.notna(row["seats"]) and row["seats"] > 1:
        seat = f"{row['seats']:.0f} seats"
    return [
        str(row["regime"]) + (f" +{row['defense']}" if row["defense"] else ""),
        str(row["threat"]),
        str(row["attack"]) + (f" ({variant})" if variant else ""),
        seat,
        leakage,
        blind,
        _number(row["accuracy"], "{:.3f}"),
        _epsilon(row),
        _number(row["bytes_per_sample"], "{:.2f}", 1e-3),
        f"[{style}]{verdict}[/]" if style else verdict,
    ]


def _few(row: pd.Series) -> str:
    """Why an audit of steps says nothing; empty where it does, or its power says why."""
    return TOO_FEW if row["metric"] == "epsilon_composed" and not row["reliable"] else ""


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "–" if value is None or pd.isna(value) else form.format(value * scale)


def _epsilon(row: pd.Series) -> str:
    """The budget, where it covers the view that was attacked."""
    if pd.isna(row["epsilon"]):
        return "–"
    holds = covered(str(row["epsilon_covers"]), str(row["threat"]))
    return f"{row['epsilon']:.2f}" if holds else "none"
