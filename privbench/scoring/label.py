"""Scores of a guess at the labels of private samples."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import LabelGuess, child_rng
from privbench.errors import NotApplicable, PluginError
from privbench.scoring import rates
from privbench.scoring.assignment import Assigned, assign
from privbench.scoring.bench import SWAPS, Bench
from privbench.scoring.score import Measured, Score, SeatResult

METRIC = "label_accuracy"


def score_label(
    guess: LabelGuess,
    seat: str,
    bench: Bench,
    classes: int,
    victims: Int64[Tensor, "n 2"],
    seen: Int64[Tensor, "m 2"],
    owned: frozenset[int],
) -> SeatResult:
    """Count right labels, over the victims alone.

    Blind is the best of: always the commonest class of the auxiliary records, by its share there or among
    the victims, whichever is larger (a handful may hold none of it); where guesses come in
    groups of unknown order also labels dealt by the classes' shares and matched like the guesses,
    and the same guesses matched to strangers.

    Args:
        victims: rows that the attack was asked for; one that it did not guess counts as guessed to
            be of the commonest class.
        seen: rows that the seat saw (guesses of unknown order can be for any of their group).
        owned: numbers of the seat's own places among the owners.

    Returns:
        ``label_accuracy``.

    Raises:
        NotApplicable: the records have no labels.
        PluginError: a label that no class has; rows that never were, or twice.
    """
    guess = LabelGuess(
        guess.rows.cpu(), guess.labels.cpu(), None if guess.groups is None else guess.groups.cpu()
    )
    if len(guess.labels) and int(guess.labels.max()) >= classes:
        raise PluginError(
            f"label {int(guess.labels.max())} was guessed; expected 0 to {classes - 1}"
        )
    if not len(victims):
        nothing = rates.clopper_pearson(0, 0)
        score = Score("label", METRIC, seat, *nothing[:3], n=0, reliable=False)
        return SeatResult(seat, (replace(score, note="it saw no row of anybody else"),))
    known, prior, strangers = bench.truth.train.y, bench.prior.y, bench.held_out.y
    if known is None or prior is None or strangers is None:
        raise NotApplicable(
            "labels cannot be scored, these records have none; choose data with labels"
        )
    shares = torch.bincount(prior, minlength=classes).double() / max(1, len(prior))
    draw = child_rng(bench.rng, "labels", seat)
    assigned = assign(
        guess.rows,
        guess.groups,
        lambda made, targets: paired(guess.labels[made], known[targets], draw),
        victims,
        seen,
        owned,
        bench.truth,
    )
    sample = bench.truth.sample_of(victims)
    true = known[sample]
    said = torch.full_like(true, int(shares.argmax()))
    commonest = max(float((said == true).double().mean()), float(shares.max()))
    said[assigned.made] = guess.labels[assigned.guess[assigned.made]]
    hits = (said == true).double().numpy()
    bars = [(commonest, "commonest class")]
    if any(len(group.targets) > 1 for group in assigned.groups):
        bars += _matching_alone(guess, assigned, shares, known, true, strangers, bench.rng)
    blind, name = max(bars)
    interval = rates.clopper_pearson(int(hits.sum()), len(hits))
    score = Score(
        "label",
        METRIC,
        seat,
        *interval[:3],
        n=len(hits),
        blind=blind,
        blind_name=name,
        reliable=interval.reliable,
        note=_note(assigned, classes),
    )
    return SeatResult(seat, (score,), (Measured(METRIC, sample.numpy(), hits),))


def paired(
    guesses: Int64[Tensor, " g"], targets: Int64[Tensor, " t"], rng: torch.Generator
) -> Int64[Tensor, " t"]:
    """For each target a guess, most of them equal to it; -1 = none is left.

    As many of each label are paired with their like as there are of both, which is the best matching
    of two multisets; which of the targets get one is drawn, and the others get what remains.
    """
    found = torch.full((len(targets),), -1)
    order = torch.randperm(len(targets), generator=rng)
    for label in targets.unique().tolist():
        mine = (guesses == label).nonzero().flatten()
        like = order[targets[order] == label]
        both = min(len(mine), len(like))
        found[like[:both]] = mine[:both]
    used = torch.zeros(len(guesses), dtype=torch.bool)
    used[found[found >= 0]] = True
    rest, bare = (~used).nonzero().flatten(), order[found[order] < 0]
    both = min(len(rest), len(bare))
    found[bare[:both]] = rest[:both]
    return found


def dealt(shares: Tensor, count: int) -> Int64[Tensor, " count"]:
    """So many labels, each as often as its share says (largest remainders are rounded up)."""
    wanted = shares * count
    times = wanted.floor().long()
    left = count - int(times.sum())
    times[(wanted - times).argsort(descending=True, stable=True)[:left]] += 1
    return torch.arange(len(shares)).repeat_interleave(times)


def _matching_alone(
    guess: LabelGuess,
    assigned: Assigned,
    shares: Tensor,
    known: Int64[Tensor, " train"],
    true: Int64[Tensor, " victims"],
    strangers: Int64[Tensor, " held"],
    rng: torch.Generator,
) -> list[tuple[float, str]]:
    """Shares right without the view: of labels dealt by class shares, and of guesses for strangers."""
    right = torch.zeros(2, SWAPS, dtype=torch.float64)
    for swap in range(SWAPS):
        draw = child_rng(rng, "label swap", swap)
        for way in (0, 1):
            real = true.clone()
            said = torch.full_like(true, int(shares.argmax()))
            for group in assigned.groups:
                mine = group.victim >= 0
                labels = guess.labels[group.guesses]
                targets = known[group.targets]
                if way == 0:
                    labels = dealt(shares, len(labels))
                else:
                    drawn = torch.randint(len(strangers), targets.shape, generator=draw)
                    targets = strangers[drawn]
                    real[group.victim[mine]] = targets[mine]
                chosen = paired(labels, targets, draw)
                made = mine & (chosen >= 0)
                said[group.victim[made]] = labels[chosen[made]]
            right[way, swap] = (said == real).double().mean()
    by_share, by_chance = right.mean(dim=1).tolist()
    return [(by_share, "class shares"), (by_chance, "matched to strangers")]


def _note(assigned: Assigned, classes: int) -> str:
    parts = [f"chance {1 / classes:.3g}"]
    missing = int((~assigned.made).sum())
    if missing:
        parts.append(f"{missing} victims were not guessed and count as the commonest class")
    return "; ".join(parts)
