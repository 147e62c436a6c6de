"""What every search for the inputs behind a gradient shares: which gradients, from where, in what order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import ReconstructionGuess, View, child_rng
from privbench.errors import NotApplicable
from privbench.toolkit.chain import chain_of
from privbench.toolkit.labels import label_counts
from privbench.toolkit.matching import Distance, Matcher, Problem
from privbench.toolkit.priors import expected
from privbench.toolkit.updates import Observed, State, observed

IMAGES_AT_ONCE = 1024  # bounds memory
MIXED = 0
FEW = 3  # gradients under the same weights, on average, from which on these are not copied
LIMIT = 2.0  # of the size of a start, in units of the input's range


@dataclass(frozen=True, eq=False)
class Job:
    """One gradient to invert.

    Args:
        view: number of the view.
        rows: (step, index) that its images are named by.
        start: images to start from, and padding.
        share: of each image in the mean loss; 0 = padding.
        labels: one-hot; None = to be found along with the images.
        company: jobs of equal number have equal weights and are done together; ``MIXED`` = the job is
            done with others of that number, whatever their weights.
    """

    view: int
    known: Observed
    rows: Int64[Tensor, "n 2"]
    start: Float[Tensor, "padded ..."]
    share: Float[Tensor, " padded"]
    labels: Float[Tensor, "padded classes"] | None
    classes: int
    seed: int  # of what else is drawn for it
    company: int = 0

    @property
    def alike(self) -> tuple[object, ...]:
        """Jobs for which this is equal are done together."""
        return (
            len(self.start),
            self.labels is None,
            self.known.mean,
            *self.known.gradient,
            self.company,
        )


@dataclass(frozen=True, eq=False)
class Found:
    """Images for some rows of an update, in no order."""

    rows: Int64[Tensor, "n 2"]
    x: Float[Tensor, "n ..."]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How searches begin.

    Args:
        images: most that are rebuilt of one update; more rows than that are stood for by these.
        noise: standard deviation of the start, in units of the input's range.
        centred: around the mean auxiliary input, kept within the range; else around 0, as it falls.
        read: are labels read off the last bias where that works? Else they are always searched for.
    """

    images: int
    noise: float
    centred: bool = True
    read: bool = True


Descent = Callable[[View, Sequence[Job]], Float[Tensor, "jobs n ..."]]
"""Alike jobs of one network to their images; what is made of one does not depend on the others."""


def inverted(
    views: Sequence[View], rngs: Sequence[torch.Generator], setting: Setting, descend: Descent
) -> list[ReconstructionGuess]:
    """Images for the rows of each update that holds a victim, one group an update.

    Args:
        rngs: one a view.
        descend: is given jobs that are alike, whoever saw them.

    Raises:
        NotApplicable: a seat lacks weights of the network, or the shape of inputs.
    """
    jobs: list[Job] = []
    for number, (view, rng) in enumerate(zip(views, rngs, strict=True)):
        mine = jobs_of(number, view, rng, setting)
        jobs += _numbered(jobs, mine, bool(mine) and _is_chain(view, mine[0]))
    found: dict[int, Tensor] = {}
    for batch in _batches(jobs):
        view = views[batch[0].view]
        for job, x in zip(batch, descend(view, batch).cpu(), strict=True):
            found[id(job)] = x[: len(job.rows)]
    return [
        guessed(view, [Found(job.rows, found[id(job)]) for job in jobs if job.view == number])
        for number, view in enumerate(views)
    ]


def matcher_of(view: View, jobs: Sequence[Job], distance: Distance) -> Matcher:
    """What tells how far images of these jobs are from what was seen."""
    problems = [Problem(job.known.gradient, job.known.weights, job.share) for job in jobs]
    shape = jobs[0].start.shape[1:]
    mixed = jobs[0].company == MIXED
    return Matcher(view.topology.net.module(), problems, shape, distance, view.device, mixed)


def starts_of(jobs: Sequence[Job], device: str) -> tuple[Tensor, Tensor]:
    """Where images and labels of some alike jobs begin; zeros are logits of unknown labels."""
    x = torch.stack([job.start for job in jobs]).to(device)
    known = [job.labels for job in jobs if job.labels is not None]
    if known:
        return x, torch.stack(known).to(device)
    return x, torch.zeros(*x.shape[:2], jobs[0].classes, device=device)


def jobs_of(number: int, view: View, rng: torch.Generator, setting: Setting) -> list[Job]:
    """The gradients of a view that victims had a part in.

    Args:
        number: of the view.
    """
    jobs: list[Job] = []
    if not len(view.victims):
        return jobs
    module = view.topology.net.module()
    trained = {name for name, _ in module.named_parameters()}
    mean = expected(view.public, shape_of(view))
    for known in observed(view):
        rows = asked_first(view, known, setting.images)
        if rows is None:
            continue
        draw = child_rng(rng, "start", known.step, known.sender)
        padded = _padded(len(rows))
        start = setting.noise * torch.randn(padded, *mean.shape, generator=draw)
        start = (mean + start).clamp(0, 1) if setting.centred else start.clamp(-LIMIT, LIMIT)
        seed = int(torch.randint(2**62, (), generator=draw))
        told = _told(known, trained)
        module.load_state_dict(dict(told.weights))
        with torch.no_grad():
            classes = module(mean[None]).shape[1]
        counts = label_counts(told, module, view.public.auxiliary, len(rows))
        labels, share = None, torch.zeros(padded)
        share[: len(rows)] = 1 / len(rows)
        if counts is not None and setting.read:
            labels = torch.zeros(padded, classes)
            labels[: len(rows)] = torch.eye(classes).repeat_interleave(counts, dim=0)
        jobs.append(Job(number, told, rows, start, share, labels, classes, seed))
    return jobs


def asked_first(view: View, known: Observed, most: int) -> Int64[Tensor, "n 2"] | None:
    """The rows of an update that are rebuilt, victims before others; None = it holds no victim."""
    victims = view.victims[view.victims[:, 0] == known.step, 1]
    asked = victims[torch.isin(victims, known.rows)]
    if not len(asked):
        return None
    others = known.rows[~torch.isin(known.rows, asked)]
    index = torch.cat([asked, others])[:most].sort().values
    return torch.stack([torch.full_like(index, known.step), index], dim=1)


def shape_of(view: View) -> tuple[int, ...]:
    """Shape of one input.

    Raises:
        NotApplicable: the seat holds no input that would tell.
    """
    own = view.own.samples if view.own is not None else None
    for held in (view.public.auxiliary, own):
        if held is not None and len(held):
            return tuple(held.x.shape[1:])
    raise NotApplicable(
        "gradients are inverted from the mean auxiliary input on, and this seat holds no inputs; "
        "choose a split with auxiliary records (data.split=thirds)"
    )


def nobody(view: View) -> ReconstructionGuess:
    """A guess at no row."""
    shape = shape_of(view) if len(view.victims) else (1,)
    none = torch.empty(0, dtype=torch.int64)
    return ReconstructionGuess(none.reshape(0, 2), torch.empty(0, *shape), none)


def guessed(view: View, done: Sequence[Found]) -> ReconstructionGuess:
    """Images of some updates as a guess; rows of one update come back in unknown order."""
    if not done:
        return nobody(view)
    groups = [torch.full((len(each.rows),), number) for number, each in enumerate(done)]
    rows = torch.cat([each.rows for each in done])
    return ReconstructionGuess(rows, torch.cat([each.x for each in done]), torch.cat(groups))


def _told(known: Observed, trained: set[str]) -> Observed:
    """Gradients of parameters alone, and everything in single precision."""
    gradient = {name: each.float() for name, each in known.gradient.items() if name in trained}
    weights = {n: t.float() if t.is_floating_point() else t for n, t in known.weights.items()}
    return replace(known, gradient=gradient, weights=weights)


def _numbered(before: Sequence[Job], jobs: Sequence[Job], chain: bool) -> list[Job]:
    """The same jobs, with numbers by which they are put together.

    What a view's jobs are put with is a matter of that view alone, else bits would depend on company.
    """
    grouped: list[list[Job]] = []
    for job in jobs:
        like = next((g for g in grouped if _same(g[0].known.weights, job.known.weights)), None)
        if like is None:
            grouped.append([job])
        else:
            like.append(job)
    if chain or (len(jobs) > 1 and len(jobs) < FEW * len(grouped)):
        return [*jobs]
    found = {}
    known = {job.company: job.known.weights for job in before if job.company != MIXED}
    for group in grouped:
        weights = group[0].known.weights
        number = next((n for n, each in known.items() if _same(each, weights)), len(known) + 1)
        weights = known.setdefault(number, weights)
        for job in group:
            told = replace(job.known, weights=weights)
            found[id(job)] = replace(job, company=number, known=told)
    return [found[id(job)] for job in jobs]


def _is_chain(view: View, job: Job) -> bool:
    return chain_of(view.topology.net.module(), job.start.shape[1:]) is not None


def _same(one: State, other: State) -> bool:
    if one is other:
        return True
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _batches(jobs: Sequence[Job]) -> list[list[Job]]:
    """Alike jobs, as many as are done at once."""
    alike: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        alike.setdefault(job.alike, []).append(job)
    found = []
    for same in alike.values():
        size = max(1, IMAGES_AT_ONCE // len(same[0].start))
        found += [same[start : start + size] for start in range(0, len(same), size)]
    return found


def _padded(rows: int) -> int:
    """A group's size with padding, so that few sizes occur and groups can be done together."""
    return 1 if rows == 1 else max(8, 1 << (rows - 1).bit_length())
