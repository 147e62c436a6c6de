"""Training losses of all regimes in one figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.ticker import FuncFormatter, NullFormatter

from privbench.errors import UsageError
from privbench.report.plots.drawing import Drawing
from privbench.report.plots.style import (
    COLOURS,
    GRID,
    LINES,
    house_style,
    look,
    new_figure,
    panel,
    plain,
)
from privbench.report.report import Report, Target

CURVES = 8  # that the eye still tells apart


def losses(reports: Sequence[Report]) -> Drawing:
    """Loss over passes of the records, a line for each way to train.

    Raises:
        UsageError: no report holds losses.
    """
    targets = _targets(reports)
    if not targets:
        raise UsageError("no run here tells the losses of its training: nothing to draw")
    shown = dict(list(targets.items())[:CURVES])
    regimes = [report.names.regime for report in reports]
    with house_style():
        figure = new_figure(2.6)
        axes = panel(figure, 0.5, 0.42, 4.6, 2.0)
        for number, (name, (regime, target)) in enumerate(shown.items()):
            kind = look(regime, regimes)
            alike = [r for r, _ in list(shown.values())[:number]].count(regime)
            line = LINES[(kind + 2 * alike) % len(LINES)]
            axes.plot(
                _passes(target), target.losses, color=COLOURS[kind], linestyle=line, linewidth=1.3,
                label=plain(name, 34), zorder=2 if line == "-" else 3,  # dashes show what lies below
            )  # fmt: skip
        axes.set_xlabel("passes over the records")
        axes.set_ylabel("training loss")
        if _spans_decades(shown):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(color=GRID, linewidth=0.6, zorder=0)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, handlelength=2.6)
    left_out = len(targets) - len(shown)
    more = f" {left_out} more are left out here." if left_out else ""
    return Drawing(
        "losses", "How training converges", _caption(shown) + more, figure, _numbers(targets)
    )


Shown = dict[str, tuple[str, Target]]
"""Targets by the name of their line, with their regime."""


def _targets(reports: Sequence[Report]) -> Shown:
    """Each way to train once; of equal names those with equal losses are one."""
    found: Shown = {}
    for report in reports:
        target, names = report.target, report.names
        if len(target.losses) < 2 or not target.passes:
            continue
        name = names.regime + (f" +{names.defense}" if names.defense else "")
        same = [known for known in found if known == name or known.startswith(f"{name} (")]
        if any(found[known][1].losses == target.losses for known in same):
            continue
        word = names.variant or f"seed {report.run.seed}"
        one = name if not same else f"{name} ({word})"
        found[one if one not in found else f"{name} ({word}, {len(same) + 1})"] = (
            names.regime,
            target,
        )
    return found


def _passes(target: Target) -> list[float]:
    """Where each point of a curve lies: in the middle of its span."""
    step = (target.passes or 0.0) / len(target.losses)
    return [(number + 0.5) * step for number in range(len(target.losses))]


def _spans_decades(shown: Shown) -> bool:
    values = [x for _, t in shown.values() for x in t.losses if math.isfinite(x) and x > 0]
    return bool(values) and max(values) > 30 * min(values)


def _caption(shown: Shown) -> str:
    last = {name: target.losses[-1] for name, (_, target) in shown.items()}
    best = min(last, key=lambda name: last[name])
    parts = ["Lower is better; where lines lie on each other, training took the same steps."]
    if len(shown) > 1:
        parts.append(f"{plain(best, 40)} ends lowest, at {last[best]:.3g}.")
    return " ".join(parts)


def _numbers(targets: Shown) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"training": name, "passes": at, "loss": loss}
            for name, (_, target) in targets.items()
            for at, loss in zip(_passes(target), target.losses, strict=True)
        ]
    )
