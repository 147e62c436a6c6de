"""Scores of several studies in one small table: the lines of their tables, some columns alone.

    python benchmarks/collect.py runs/studies/membership_core*/table.csv > benchmarks/membership.csv

A line that stands in several tables is kept once, and of many seats the worst, the median and the best.
Versions and machine are written above, and belong to whoever runs this on the machine and in the
environment of the studies.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

import pandas as pd

COLUMNS = (
    "data", "row", "regime", "threat", "attack", "variant", "seat", "over", "metric", "value", "low", "high",
    "n", "n_negative", "blind", "verdict", "accuracy", "epsilon", "shadow_models", "seed", "status", "reason",
)  # fmt: skip
METRICS = (
    "auc",
    "tpr_at_1pct_fpr",
    "auc_outliers",
    "auc_exposed",
    "auc_worst_class",
    "auc_devices",
)
SUMMARY = ("worst", "median", "best")
PACKAGES = ("privbench", "torch", "opacus", "scikit-learn", "numpy")


def collected(files: list[str]) -> pd.DataFrame:
    """The lines of all tables, in order of data, row and seed."""
    tables = [pd.read_csv(file) for file in files]
    whole = pd.concat(tables)
    same = [whole[name] for name in ("data", "row", "variant", "seed", "metric")]
    many = whole["seat"].eq("median").groupby(same, dropna=False)
    whole = whole[~many.transform("any") | whole["seat"].isin(SUMMARY)]
    wanted = whole["metric"].isin(METRICS) | (whole["status"].isin(["failed", "not_applicable"]))
    found = whole.loc[wanted, list(COLUMNS)].drop_duplicates()
    order = {metric: place for place, metric in enumerate(METRICS)}
    return found.sort_values(
        ["data", "row", "seed", "metric"],
        key=lambda column: column.map(order) if column.name == "metric" else column,
        kind="stable",
    )


def main() -> None:
    """Print the table."""
    files = sys.argv[1:]
    if not files:
        raise SystemExit("expected: python benchmarks/collect.py TABLE.csv ...; got no table")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(
        f"# Python {platform.python_version()}, {versions}; {platform.system()}, {platform.machine()}"
    )
    print(collected(files).to_csv(index=False, float_format="%.4g"), end="")


if __name__ == "__main__":
    main()
