"""The table on the screen: ten columns, one line a headline score."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table

from privbench.report.columns import HEADLINE, SUMMARY

STYLE = {
    "leaks": "bold red",
    "by construction": "red",
    "failed": "bold magenta",
    "too few": "yellow",
}


def print_table(frame: pd.DataFrame, console: Console, title: str = "") -> None:
    """Print headline scores of table rows: one line a seat, or worst, median and best of many."""
    table = Table(title=title or None, title_justify="left", header_style="bold", pad_edge=False)
    for name in ("regime", "threat", "attack", "seat"):
        table.add_column(name, overflow="fold")
    table.add_column("leakage [95 %]", no_wrap=True)
    for name in ("blind", "accuracy", "epsilon", "kB/sample"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for _, row in headlines(frame).iterrows():
        table.add_row(*_cells(row), style=None)
    console.print(table)


def headlines(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows to print: the goal's headline metric, many seats summed up, refusals and failures."""
    if frame.empty:
        return frame
    head = frame["metric"].isna() | (frame["metric"] == frame["goal"].map(HEADLINE))
    many = frame["seats"].fillna(1) > 1
    summed = frame["seat"].isin(SUMMARY) | frame["metric"].isna()
    return frame[head & (~many | summed)]


def _cells(row: pd.Series) -> list[str]:
    verdict = str(row["verdict"])
    style = STYLE.get(verdict)
    name = str(row["regime"]) + (f"+{row['defense']}" if row["defense"] else "")
    attack = str(row["attack"]) + (f" ({row['variant']})" if row["variant"] else "")
    reason = str(row["reason"] or "")
    if pd.isna(row["value"]):
        seat = f"{row['seats']:.0f} seats" if pd.notna(row["seats"]) and row["seats"] > 1 else ""
        leakage, blind = "–", "–"
        verdict = f"{verdict}: {reason}" if reason else verdict
    else:
        seat = str(row["seat"])
        leakage = f"{row['metric']} {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        blind = _number(row["blind"], "{:.3f}")
        verdict = f"{verdict} ({reason})" if reason else verdict
    return [
        name,
        str(row["threat"]),
        attack,
        seat,
        leakage,
        blind,
        _number(row["accuracy"], "{:.3f}"),
        _epsilon(row),
        _number(row["bytes_per_sample"], "{:.2f}", 1e-3),
        f"[{style}]{verdict}[/]" if style else verdict,
    ]


def _number(value: object, form: str, scale: float = 1.0) -> str:
    return "–" if value is None or pd.isna(value) else form.format(float(value) * scale)  # type: ignore[arg-type]


def _epsilon(row: pd.Series) -> str:
    """The budget, where it covers the view that was attacked."""
    if pd.isna(row["epsilon"]):
        return "–"
    covered = row["epsilon_covers"] == row["threat"] or row["threat"] == "api"
    return f"{row['epsilon']:.2f}" if covered else "none"
