"""How far the records leak that leak most: a mean over all hides them.

M. Aerni, J. Zhang, F. Tramèr: Evaluations of Machine Learning Privacy Defenses are Misleading, 2024,
https://arxiv.org/abs/2404.17399. There the most vulnerable records are stood for by canaries
(``data.canaries``); here are those of the data themselves. Which they are is settled before the bits
are looked at, or on one half of them for the other: the largest of many estimates is too large.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Samples, child_rng
from privbench.scoring import statistics
from privbench.scoring.compared import Compared, tpr_name
from privbench.scoring.score import Measured, Score
from privbench.scoring.seats import halves, selected

SHARE = 0.1  # of the candidates: few enough to be a tail, enough to measure on 1,000 records
RATE = 0.01  # of false positives
LISTED = 10  # record numbers in a note
NEAREST = 5  # neighbours whose mean distance counts
PUBLIC = 2_000  # records that are compared with; more change little and take long
NARROW = 256  # features; more are projected at random, which keeps distances


@dataclass(frozen=True, eq=False)
class People:
    """What is known of the candidates without model and truth.

    Args:
        labels: their classes; None = there are none.
        strangeness: how unlike public records of its class each is, ``(n,)``.
        numbers: which record of the data each is, ``(n,)``.
    """

    labels: np.ndarray | None
    strangeness: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(
        cls, candidates: Samples, public: Samples | None, numbers: Tensor, rng: torch.Generator
    ) -> People:
        """From the candidates and public records; without these from the candidates alone."""
        labels = None if candidates.y is None else candidates.y.numpy()
        return cls(labels, strangeness(candidates, public, rng), numbers.numpy())


def most_vulnerable(
    compared: Compared, people: People, exposure: Float[Tensor, " candidates"] | None
) -> list[Score]:
    """``auc`` and ``tpr_at_1pct_fpr`` of three groups of the candidates.

    ``outliers``: the tenth that is least like public records, the same for every attack and regime;
    ``exposed``: the tenth that the attack, by its shadow models, held for the most exposed; and
    ``worst_class``: the class with the largest area, selected on one half of the records and estimated
    on the other.

    Args:
        compared: all candidates that count.
        exposure: the attack's own ranking, where it has one.
    """
    found = _tail(compared, people, people.strangeness, "outliers", "least like public records")
    if exposure is not None:
        held = exposure.double().cpu().numpy()
        found += _tail(
            compared, people, held, "exposed", "most exposed, says the attack beforehand"
        )
    return found + _worst_class(compared, people)


def strangeness(
    candidates: Samples, public: Samples | None, rng: torch.Generator
) -> Float[np.ndarray, " n"]:
    """How far a record lies from public ones of its class, in units of how far it lies from others.

    The ratio of mean distances to the five nearest; without labels that distance itself. A record
    among those of another class has more than 1: odd, or wrongly labelled.

    Args:
        public: None = the candidates themselves, each without itself.
    """
    alone = public is None
    known = candidates if public is None else public
    drawn = torch.randperm(len(known), generator=child_rng(rng, "public"))[:PUBLIC]
    known = known[drawn]
    width = candidates.x[0].numel()
    across = None
    if width > NARROW:
        across = torch.randn(width, NARROW, generator=child_rng(rng, "projection")) / NARROW**0.5
    found = []
    for start in range(0, len(candidates), 500):
        some = candidates[start : start + 500]
        apart = torch.cdist(_flat(some.x, across), _flat(known.x, across))
        if alone:
            own = torch.arange(start, start + len(some))
            apart = apart.masked_fill(own[:, None] == drawn, torch.inf)
        found.append(_ratio(apart, some.y, known.y))
    return torch.cat(found).double().numpy()


def _flat(x: Tensor, across: Tensor | None) -> Tensor:
    flat = x.flatten(1).float()
    return flat if across is None else flat @ across


def _ratio(apart: Float[Tensor, "n m"], mine: Tensor | None, theirs: Tensor | None) -> Tensor:
    if mine is None or theirs is None:
        return _near(apart)
    same = mine[:, None] == theirs[None]
    near, far = (_near(apart.masked_fill(away, torch.inf)) for away in (~same, same))
    return near / (near + far).clamp(min=1e-12)  # grows with near / far, and stays finite


def _near(apart: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
    """Mean distance to the nearest; 1e6 where there is none."""
    nearest = apart.topk(min(NEAREST, apart.shape[1]), largest=False).values
    there = nearest.isfinite()
    mean = nearest.where(there, 0).sum(dim=1) / there.sum(dim=1).clamp(min=1)
    return mean.where(there.any(dim=1), 1e6)


def _tail(
    compared: Compared, people: People, ranking: np.ndarray, name: str, which: str
) -> list[Score]:
    """Scores of the tenth of the records that ranks highest."""
    count = max(1, round(SHARE * len(compared.records)))
    order = np.argsort(-ranking[compared.records], kind="stable")[:count]
    part = compared.part(order, name)
    shown = ", ".join(str(people.numbers[record]) for record in part.records[:LISTED])
    more = ", …" if count > LISTED else ""
    note = f"the {count} records {which}; record numbers {shown}{more}"
    return [_noted(score, note) for score in (part.auc(), part.tpr(RATE))]


def _worst_class(compared: Compared, people: People) -> list[Score]:
    """Scores of the class that leaks most; none where there are no two classes."""
    if people.labels is None:
        return []
    parts, sound = _classes(compared, people.labels[compared.records])
    if len(parts) < 2:
        return []
    found = []
    for metric, chance, rate in (("auc", 0.5, None), (tpr_name(RATE), RATE, RATE)):
        measured = [
            Measured(metric, part.records, part.scores, part.bits, fpr=rate) for _, part in parts
        ]
        draws = replace(compared, group="worst_class").draws(metric)
        interval, at = selected(measured, halves(measured, draws), 1, draws)
        chosen = [parts[place] for place in at]
        blind = [part.blind_auc() if rate is None else part.blind_tpr(rate) for _, part in chosen]
        score = chosen[0][1].score(
            metric,
            interval._replace(reliable=interval.reliable and sound),
            chance,
            float(np.mean(blind)),
        )
        classes = " and ".join(str(label) for label in sorted({label for label, _ in chosen}))
        found.append(_noted(score, f"class {classes}: of {len(parts)} classes, {_HALVES}"))
    return found


_HALVES = "selected on one half of the records, estimated on the other"


def _classes(compared: Compared, labels: np.ndarray) -> tuple[list[tuple[int, Compared]], bool]:
    """Each class with its records; and whether its halves are large enough to be trusted."""
    parts = [
        (int(label), compared.part(labels == label, "worst_class")) for label in np.unique(labels)
    ]
    large = [part for part in parts if _fewest(part[1]) >= 2 * statistics.FEW]
    if len(large) >= 2:
        return large, True
    return [part for part in parts if _fewest(part[1]) >= 2], False


def _fewest(part: Compared) -> int:
    """Members or non-members, whichever are fewer."""
    return int(min(part.bits.sum(), (~part.bits).sum()))


def _noted(score: Score, note: str) -> Score:
    return replace(score, note="; ".join(part for part in (note, score.note) if part))
