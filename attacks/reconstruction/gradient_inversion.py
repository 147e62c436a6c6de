"""Invert gradients: which inputs would have moved the network this way?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from privbench.contract import Attack, Guess, ReconstructionGuess, View, child_rng, counted
from privbench.errors import NotApplicable
from privbench.toolkit.labels import label_counts
from privbench.toolkit.priors import expected, is_image, variation_slope
from privbench.toolkit.sets import over_sets
from privbench.toolkit.updates import Observed, observed

IMAGES_AT_ONCE = 1024  # bounds memory


@dataclass(frozen=True, eq=False)
class _Job:
    """One gradient to invert.

    Args:
        view: number of the view.
        rows: (step, index) that its images are named by.
        start: images to start from, and padding.
        share: of each image in the mean loss; 0 = padding.
        labels: one-hot; None = to be found along with the images.
    """

    view: int
    known: Observed
    rows: Int64[Tensor, "n 2"]
    start: Float[Tensor, "padded ..."]
    share: Float[Tensor, " padded"]
    labels: Float[Tensor, "padded classes"] | None
    classes: int

    @property
    def shape(self) -> tuple[object, ...]:
        """Jobs of equal shape are done together."""
        return (len(self.start), self.labels is None, tuple(self.known.gradient))


@dataclass(frozen=True, kw_only=True)
class GradientInversion(Attack):
    """Matches the direction of a gradient, with a smoothness prior and signed Adam.

    J. Geiping, H. Bauermeister, H. Dröge, M. Moeller: Inverting Gradients - How easy is it to break
    privacy in federated learning?, NeurIPS 2020, https://arxiv.org/abs/2003.14053.

    We differ: far fewer steps and no restarts, a start near the mean auxiliary input instead of
    noise, and the update of several local steps is matched by one gradient, not by unrolling them.
    Labels are read off the last bias where that works (toolkit.labels), else optimised as
    probabilities (L. Zhu, Z. Liu, S. Han: Deep Leakage from Gradients, 2019,
    https://arxiv.org/abs/1906.08935). What is inverted, and under which weights, depends on the
    seat: see ``toolkit.updates.observed``. Rows of one update come back in unknown order.

    Args:
        steps: of Adam; its rate falls tenfold after 3/8, 5/8 and 7/8 of them.
        rate: at the start, in units of the input's range.
        smooth: weight of the mean total variation a pixel beside the cosine distance.
        noise: standard deviation of the start around the mean input; tells images of a group apart.
        images: most that are rebuilt of one update; more rows than that are stood for by these.

    Example::

        privbench regime=fedavg_one_sample threat=server attack=gradient_inversion victims=8
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("model_weights|stale_weights|initial_weights",)
    reads: ClassVar[tuple[str, ...]] = (
        "update",
        "stem_gradient",
        "global_weights",
        "stem_weights",
        "tail_gradient",
        "tail_weights",
    )
    source: ClassVar[str] = (
        "J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, Inverting Gradients - How easy is it to "
        "break privacy in federated learning?, 2020, https://arxiv.org/abs/2003.14053"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"steps": 60})

    steps: int = 400  # the paper's 4,800 gain little on small images
    rate: float = 0.1
    smooth: float = 1e-4  # on auxiliary digits, more of it blurs and none suits batches worse
    noise: float = 0.02
    images: int = 64

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """Images for the rows of each update that holds a victim, one group an update.

        Raises:
            NotApplicable: the seat lacks weights of the network, or the shape of inputs.
        """
        (guess,) = self._invert([view], [rng])
        return guess

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        """Updates of equal size are inverted together, whoever saw them."""
        return list(self._invert(views, [child_rng(rng, view.seat.name) for view in views]))

    def _invert(
        self, views: Sequence[View], rngs: Sequence[torch.Generator]
    ) -> list[ReconstructionGuess]:
        jobs = [
            job
            for number, (view, rng) in enumerate(zip(views, rngs, strict=True))
            for job in self._jobs(number, view, rng)
        ]
        found: dict[int, Tensor] = {}
        for batch in _batches(jobs):
            view = views[batch[0].view]
            for job, x in zip(batch, self._descend(view, batch).cpu(), strict=True):
                found[id(job)] = x[: len(job.rows)]
        return [
            _guess(view, [(job, found[id(job)]) for job in jobs if job.view == number])
            for number, view in enumerate(views)
        ]

    def _jobs(self, number: int, view: View, rng: torch.Generator) -> list[_Job]:
        """The gradients that victims had a part in."""
        jobs = []
        module = view.topology.net.module()
        trained = {name for name, _ in module.named_parameters()}
        mean = expected(view.public, _shape(view)) if len(view.victims) else torch.empty(0)
        for known in observed(view) if len(view.victims) else ():
            victims = view.victims[view.victims[:, 0] == known.step, 1]
            asked = victims[torch.isin(victims, known.rows)]
            if not len(asked):
                continue
            others = known.rows[~torch.isin(known.rows, asked)]
            index = torch.cat([asked, others])[: self.images].sort().values
            rows = torch.stack([torch.full_like(index, known.step), index], dim=1)
            draw = child_rng(rng, "start", known.step, known.sender)
            padded = _padded(len(rows))
            spread = torch.randn(padded, *mean.shape, generator=draw)
            start = (mean + self.noise * spread).clamp(0, 1)
            gradient = {n: t for n, t in known.gradient.items() if n in trained}
            told = Observed(
                known.step, known.sender, known.rows, gradient, known.weights, known.mean
            )
            module.load_state_dict(dict(known.weights))
            with torch.no_grad():
                classes = module(mean[None]).shape[1]
            counts = label_counts(told, module, view.public.auxiliary, len(rows))
            labels, share = None, torch.zeros(padded)
            share[: len(rows)] = 1 / len(rows)
            if counts is not None:
                labels = torch.zeros(padded, classes)
                labels[: len(rows)] = torch.eye(classes).repeat_interleave(counts, dim=0)
            jobs.append(_Job(number, told, rows, start, share, labels, classes))
        return jobs

    def _descend(self, view: View, jobs: Sequence[_Job]) -> Float[Tensor, "jobs n ..."]:
        """Adam on the signs of slopes; jobs do not touch each other."""
        device = view.device
        distance = _distance(view.topology.net.module(), jobs, device)
        x = torch.stack([job.start for job in jobs]).to(device)
        soft = jobs[0].labels is None
        labels = torch.zeros(*x.shape[:2], jobs[0].classes, device=device)
        if not soft:
            labels = torch.stack([job.labels for job in jobs if job.labels is not None]).to(device)
        images, pixels = is_image(x.shape[2:]), x[0, 0].numel()
        adam_x, adam_labels = _Adam(x), _Adam(labels)
        for step in counted(range(self.steps)):
            rate = self.rate * 0.1 ** sum(step >= self.steps * k / 8 for k in (3, 5, 7))
            x.requires_grad_()
            if soft:
                labels.requires_grad_()
            far = distance(x, labels.softmax(dim=-1) if soft else labels).sum()
            slopes = torch.autograd.grad(far, (x, labels) if soft else (x,))
            x, labels = x.detach(), labels.detach()
            slope = slopes[0]
            if images:
                slope = slope + self.smooth / pixels * variation_slope(x)
            x = (x - rate * adam_x.direction(slope.sign())).clamp_(0, 1)
            if soft:
                labels = labels - rate * adam_labels.direction(slopes[1])
        return x


class _Adam:
    """Adam's direction, for one tensor."""

    def __init__(self, like: Tensor) -> None:
        self._mean, self._square, self._step = torch.zeros_like(like), torch.zeros_like(like), 0

    def direction(self, slope: Tensor) -> Tensor:
        """Where to go, in units of the rate."""
        self._step += 1
        self._mean = self._mean.mul(0.9).add(slope, alpha=0.1)
        self._square = self._square.mul(0.999).addcmul(slope, slope, value=0.001)
        scale = (self._square / (1 - 0.999**self._step)).sqrt().add(1e-8)
        return self._mean / (1 - 0.9**self._step) / scale


def _distance(
    module: nn.Module, jobs: Sequence[_Job], device: str
) -> Callable[[Tensor, Tensor], Float[Tensor, " jobs"]]:
    """One minus the cosine between each job's gradient and that of given images and labels."""
    names = tuple(jobs[0].known.gradient)
    states = {
        name: torch.stack([job.known.weights[name] for job in jobs]).to(device)
        for name in jobs[0].known.weights
    }
    goal = torch.stack(
        [torch.cat([job.known.gradient[name].flatten() for name in names]) for job in jobs]
    ).to(device)
    share = torch.stack([job.share for job in jobs]).to(device)
    goal = goal / goal.norm(dim=1, keepdim=True).clamp(min=1e-30)

    logits = over_sets(module, jobs[0].start.shape[1:])

    def distance(x: Tensor, labels: Tensor) -> Float[Tensor, " jobs"]:
        at = {name: states[name].detach().requires_grad_() for name in names}
        said = logits({**states, **at}, x).log_softmax(dim=-1)
        loss = -(share * (labels * said).sum(dim=-1)).sum()
        parts = torch.autograd.grad(loss, tuple(at.values()), create_graph=True)
        found = torch.cat([part.flatten(1) for part in parts], dim=1)
        dot = (found * goal).sum(dim=1)
        return 1 - dot / found.square().sum(dim=1).clamp(min=1e-30).sqrt()

    return distance


def _batches(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """Jobs of equal shape, as many as are done at once."""
    alike: dict[tuple[object, ...], list[_Job]] = {}
    for job in jobs:
        alike.setdefault(job.shape, []).append(job)
    found = []
    for same in alike.values():
        size = max(1, IMAGES_AT_ONCE // len(same[0].start))
        found += [same[start : start + size] for start in range(0, len(same), size)]
    return found


def _guess(view: View, done: Sequence[tuple[_Job, Tensor]]) -> ReconstructionGuess:
    if not done:
        shape = _shape(view) if len(view.victims) else (1,)
        nobody = torch.empty(0, dtype=torch.int64)
        return ReconstructionGuess(nobody.reshape(0, 2), torch.empty(0, *shape), nobody)
    groups = [torch.full((len(job.rows),), number) for number, (job, _) in enumerate(done)]
    rows = torch.cat([job.rows for job, _ in done])
    return ReconstructionGuess(rows, torch.cat([x for _, x in done]), torch.cat(groups))


def _shape(view: View) -> tuple[int, ...]:
    """Shape of one input."""
    own = view.own.samples if view.own is not None else None
    for held in (view.public.auxiliary, own):
        if held is not None and len(held):
            return tuple(held.x.shape[1:])
    raise NotApplicable(
        "gradients are inverted from the mean auxiliary input on, and this seat holds no inputs; "
        "choose a split with auxiliary records (data.split=thirds)"
    )


def _padded(rows: int) -> int:
    """A group's size with padding, so that few sizes occur and groups can be done together."""
    return 1 if rows == 1 else max(8, 1 << (rows - 1).bit_length())
