"""What figures take from reports: headline scores, names, and words for numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from privbench.report.columns import HEADLINE, SUMMARY
from privbench.report.plots.style import plain, ramp, slug
from privbench.report.report import Report
from privbench.scoring.score import LOWER_LEAKS, RATES, Score

SHARES = frozenset(
    {"identification", "evaluator_top1", "label_accuracy", "auc", "balanced_accuracy"}
)
"""Metrics that end at 1."""


def metric_of(report: Report) -> str:
    """The metric that stands for a report: the goal's headline, else the first that it has."""
    found = [score.metric for score in report.scores]
    wanted = HEADLINE.get(report.names.goal, "")
    return wanted if wanted in found or not found else found[0]


def headline(report: Report) -> dict[str, Score]:
    """The headline score of each seat, worst, median and best among them."""
    metric = metric_of(report)
    scores: dict[str, Score] = {}
    for score in report.scores:
        if score.metric == metric:
            scores.setdefault(score.seat, score)
    return scores


def seats_of(report: Report) -> dict[str, Score]:
    """The headline score of each seat that is a position, not a summary."""
    return {seat: score for seat, score in headline(report).items() if seat not in SUMMARY}


def chosen(report: Report) -> Score | None:
    """The score that stands for a report: its only seat's, or the worst of many."""
    scores = headline(report)
    return scores.get("worst") or next(iter(scores.values()), None)


def leakage(score: Score) -> float:
    """A number that grows with what leaked; what is no number comes last of all."""
    if not math.isfinite(score.value):
        return -math.inf
    return -score.value if score.metric in LOWER_LEAKS else score.value


def verdict(report: Report, score: Score) -> str:
    """The verdict as the table has it."""
    return "as centralized" if report.status == "same_as" else score.verdict()


def measured(report: Report) -> bool:
    """Whether there is a number to draw."""
    return report.status in ("ok", "same_as") and bool(report.scores)


def about(report: Report, length: int = 60) -> str:
    """What a line or point is called: regime, defence, seat and attack."""
    names = report.names
    regime = names.regime + (f" +{names.defense}" if names.defense else "")
    attack = names.attack + (f" ({names.variant})" if names.variant else "")
    return plain(" · ".join(part for part in (regime, names.threat, attack) if part), length)


def stem_of(kind: str, report: Report) -> str:
    """A stable name for a figure of one report."""
    names = report.names
    row = names.row or "-".join(
        part for part in (names.regime, names.defense, names.threat, names.attack, names.variant) if part
    )  # fmt: skip
    return f"{kind}-{slug(row) or 'run'}"


def words(score: Score) -> str:
    """What the value of a metric says, for an axis."""
    if (score.goal, score.metric) == ("recurrence", "auc"):
        return "how well one record's rows are told from others' (AUC)"
    return {
        "identification": "share of private records re-identified",
        "auc": "how well members are told apart (AUC)",
        "evaluator_top1": "share of classes rebuilt recognisably",
        "label_accuracy": "share of labels found out",
        "psnr_db": "likeness of rebuilt records (PSNR, dB)",
        "balanced_accuracy": "share of memberships guessed right",
        "mse": "error of rebuilt records (less = leaks more)",
        "ssim": "likeness of rebuilt images (SSIM)",
        "psnr_20db_rate": "share of images rebuilt at 20 dB or better",
        "ssim_0.6_rate": "share of images rebuilt at SSIM 0.6 or better",
        "perceptual": "distance to the evaluator's eye (less = leaks more)",
        "epsilon_one_run": "epsilon, proven at least",
        "epsilon_composed": "epsilon, proven at least",
        "column_gain": "gain over guessing what is usual in a column",
    }.get(score.metric, plain(score.metric.replace("_", " "), 48))


def number(value: float, metric: str) -> str:
    """A value in a sentence."""
    if not math.isfinite(value):
        return "no number"
    if metric in RATES:
        return f"{100 * value:.3g} %"
    return f"{value:.3g}"


@dataclass(frozen=True)
class Scale:
    """Leakage as colour: from what guessing gives to all that there is.

    Args:
        metric: what is measured.
        blind: the pale end.
        top: the dark end.
    """

    metric: str
    blind: float
    top: float

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Scale:
        """That of the headline scores of a crowd."""
        metric = scores[0].metric
        blinds = sorted(score.blind for score in scores if math.isfinite(score.blind))
        values = [score.value for score in scores if math.isfinite(score.value)]
        blind = blinds[len(blinds) // 2] if blinds else 0.0
        if metric in SHARES or metric.startswith("tpr_at"):
            top = 1.0
        elif metric in LOWER_LEAKS:
            top = 0.0
        else:
            top = max([*values, blind])
        return cls(metric, blind, top if top != blind else blind + 1)

    def share(self, score: Score | None) -> float | None:
        """How far a score stands from guessing, 0 to 1; None where there is no number."""
        if score is None or not math.isfinite(score.value):
            return None
        return min(max((score.value - self.blind) / (self.top - self.blind), 0.0), 1.0)

    def colour(self, score: Score | None) -> str | None:
        """The colour of a score; None where there is no number."""
        share = self.share(score)
        return None if share is None else ramp(share)


def varied(reports: Sequence[Report], limit: int) -> list[int]:
    """Positions of so many: one of each regime first, then other threats, then the rest; in order."""
    order: dict[int, None] = {}
    for depth in (2, 3, 5):
        seen = set()
        for place, report in enumerate(reports):
            names = report.names
            key = (names.regime, names.defense, names.threat, names.attack, names.variant)[:depth]
            if key not in seen:
                order.setdefault(place)
            seen.add(key)
    order |= dict.fromkeys(range(len(reports)))
    return sorted(list(order)[:limit])
