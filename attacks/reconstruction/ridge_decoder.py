"""Decode activations by a linear map fitted in closed form."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import Attack, Guess, ReconstructionGuess, View, child_rng, counted
from privbench.toolkit.pairs import ALL, as_sent, input_shape, pair_source, pushed
from privbench.toolkit.prefix import Prefix, Prefixes
from privbench.toolkit.priors import expected
from privbench.toolkit.ridge import Ridge, fit_ridge
from privbench.toolkit.traffic import Seen, each_known, seen_of_victims


@dataclass(frozen=True, kw_only=True)
class RidgeDecoder(Attack):
    """The best linear map, in the least-squares sense, from what a seat sees back to the input.

    A. E. Hoerl, R. W. Kennard: Ridge Regression: Biased Estimation for Nonorthogonal Problems,
    Technometrics 1970, https://doi.org/10.1080/00401706.1970.10488634, as the decoder of
    Z. He, T. Zhang, R. B. Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019,
    https://doi.org/10.1145/3359789.3359824.

    We differ: their decoder is an inverse network trained by gradient descent; ours is linear and
    solved at once, and under message defenses it is fitted on pairs that passed the same defenses.

    Where its pairs come from is the seat's to say: ``prefix``, auxiliary inputs through the layers
    before it, one decoder a step; ``query``, answers of an oracle at each step; ``own`` and
    ``chosen``, its own samples as it saw them cross, one decoder for all steps. It reads the
    shallowest layer of which it sees a victim, and has a decoder for each set of units that it sees.

    Example::

        privbench regime=slicenet threat=host attack=ridge_decoder
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("pairs",)
    reads: ClassVar[tuple[str, ...]] = ("activation", "partial_sum")
    source: ClassVar[str] = (
        "A. E. Hoerl, R. W. Kennard, Ridge Regression: Biased Estimation for Nonorthogonal "
        "Problems, 1970, https://doi.org/10.1080/00401706.1970.10488634"
    )

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An image for each victim; the mean auxiliary image for one that was not seen.

        Raises:
            NotApplicable: the seat lacks what its kind of pairs needs.
        """
        (guess,) = _guesses([_Decoding(view, rng)])
        return guess

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        """Seats that see something of one layer under the same weights share its activations, and
        those that see the same units their decoders too.
        """
        work: list[_Decoding] = []
        for view in counted(views):
            before = work[-1] if work else None
            work.append(_Decoding(view, child_rng(rng, view.seat.name), before))
        return list(_guesses(work))


@dataclass(frozen=True, eq=False)
class _Job:
    """Victims of one seat and step, of which the same units were seen.

    Args:
        victims: their places in the view's victims.
        features: what was seen of them.
    """

    of: _Decoding
    seen: Seen
    step: int
    prefix: Prefix
    victims: Int64[Tensor, " n"]
    features: Float[Tensor, "n features"]


class _Decoding:
    """The work for one seat.

    Args:
        view: of the seat.
        rng: of the defenses' noise.
        before: work for another seat, whose traces may serve again.
    """

    def __init__(self, view: View, rng: torch.Generator, before: _Decoding | None = None) -> None:
        self.view, self._rng = view, rng
        like = before._prefixes if before is not None else None
        self._prefixes: Prefixes = Prefixes(view.topology, view.weights, like)
        shape = input_shape(view)
        self._guess = expected(view.public, shape).repeat(len(view.victims), *(1 for _ in shape))
        self.jobs: list[_Job] = []  # what is left to be done, and may be shared
        parts = seen_of_victims(view)
        if view.seat.pairs in ("own", "chosen", "query"):
            each_known(parts, self._by_itself)
        else:
            for _, jobs in each_known(parts, self._from_prefix):
                self.jobs += jobs

    def guess(self) -> ReconstructionGuess:
        """An image for each victim, once all jobs are done."""
        return ReconstructionGuess(self.view.victims, self._guess)

    def decode(self, decoder: Ridge, victims: Tensor, features: Tensor) -> None:
        """Put images in the guess's place."""
        found = decoder(features.to(self.view.device)).float().cpu()
        self._guess[victims] = found.reshape(-1, *self._guess.shape[1:])

    def as_sent(self, seen: Seen, whole: Tensor, step: int) -> Float[Tensor, "n features"]:
        """What the seat would see of a layer's whole output, after the defenses."""
        return as_sent(self.view, seen, whole, step, child_rng(self._rng, "pairs", step)).flatten(1)

    def _by_step(self, seen: Seen) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Steps, with places of victims and what was seen of them."""
        rows = self.view.victims[seen.victims]
        features = seen.features(rows)
        for step in rows[:, 0].unique().tolist():
            here = rows[:, 0] == step
            yield step, seen.victims[here], features[here]

    def _by_itself(self, seen: Seen) -> None:
        """Decode victims by pairs that no other seat has."""
        source = pair_source(self.view, seen, self._prefixes)
        fitted: dict[int, Ridge] = {}
        for step, victims, features in self._by_step(seen):
            key = step if step in source.steps else ALL
            if key not in fitted:
                noise = child_rng(self._rng, "pairs", step)
                pairs = source.draw(key, torch.arange(source.count(key)), noise)
                fitted[key] = _fit(pairs.seen.flatten(1), pairs.x, self.view.device)
            self.decode(fitted[key], victims, features)

    def _from_prefix(self, seen: Seen) -> list[_Job]:
        """Jobs for auxiliary inputs through the layers before the seat, with the weights of a step."""
        pushed(self.view, seen)  # says why where nothing can be
        none = replace(
            seen.seen, rows=seen.seen.rows[:0].clone(), payload=seen.seen.payload[:0].clone()
        )
        bare = replace(seen, seen=none)  # jobs wait for those of other seats: memory is theirs
        return [
            _Job(self, bare, step, self._prefixes.at(seen.layer.name, step), victims, features)
            for step, victims, features in self._by_step(seen)
        ]


def _guesses(work: Sequence[_Decoding]) -> list[ReconstructionGuess]:
    """Do all jobs, those of the same layer and weights together."""
    groups: dict[str, list[_Job]] = {}
    told: dict[int, str] = {}  # of auxiliary inputs, which seats may have in common
    for job in (job for each in work for job in each.jobs):
        x = _auxiliary(job)
        key = told.setdefault(id(x), "") or _digest((x,))
        told[id(x)] = key
        weights = _digest(job.prefix.state.values())
        groups.setdefault(f"{job.seen.layer.name} {weights} {key}", []).append(job)
    for jobs in counted(list(groups.values())):
        _do(jobs)
    return [each.guess() for each in work]


def _do(jobs: Sequence[_Job]) -> None:
    """Decode what was seen of one layer under the same weights."""
    first, x = jobs[0], _auxiliary(jobs[0])
    device = first.of.view.device
    with torch.no_grad():
        whole = first.prefix(x.to(device)).cpu()
    fitted: dict[tuple[int, ...], Ridge] = {}
    for job in jobs:
        units, shared = job.seen.seen.units, not job.of.view.topology.defenses
        decoder = fitted.get(units) if shared else None  # noise of defenses is each seat's own
        if decoder is None:
            decoder = _fit(job.of.as_sent(job.seen, whole, job.step), x, device)
        if shared:
            fitted[units] = decoder
        job.of.decode(decoder, job.victims, job.features)


def _auxiliary(job: _Job) -> Float[Tensor, "n ..."]:
    held = job.of.view.public.auxiliary
    return torch.empty(0) if held is None else held.x


def _fit(features: Float[Tensor, "n p"], x: Float[Tensor, "n ..."], device: str) -> Ridge:
    return fit_ridge(features.to(device), x.flatten(1).to(device))


def _digest(tensors: Iterable[Tensor]) -> str:
    """The same for tensors of the same numbers."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
