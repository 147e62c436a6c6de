"""What is known without the view: blind guesses, against which every attack is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from privbench.contract import Samples, child_rng

FOLDS = 5
LARGEST = 2_000  # candidates that the blind classifier is fitted on; its cost grows with the cube
RIDGE = 1.0  # a kernel matrix has ones on its diagonal


@dataclass(frozen=True, eq=False)
class BlindImage:
    """A guess that ignores the view, for each of n victims."""

    name: str
    x: Float[Tensor, "n ..."]


def blind_images(prior: Samples, labels: Int64[Tensor, " n"]) -> tuple[BlindImage, ...]:
    """Grey, the mean image, and the mean image of each victim's true class.

    Args:
        prior: records of the same distribution, disjoint from the victims.
        labels: of the victims. Knowing them is more than a blind guess has: the safe side.
    """
    count = len(labels)
    shape = prior.x.shape[1:]
    mean = prior.x.double().mean(dim=0).float()
    found = [
        BlindImage("grey", torch.full((count, *shape), 0.5)),
        BlindImage("mean image", mean.expand(count, *shape).clone()),
    ]
    if prior.y is not None:
        means = mean.expand(count, *shape).clone()
        for label in labels.unique().tolist():
            alike = prior.x[prior.y == label]
            if len(alike):
                means[labels == label] = alike.double().mean(dim=0).float()
        found.append(BlindImage("class mean", means))
    return tuple(found)


def nearest(x: Float[Tensor, "n ..."], public: Float[Tensor, "m ..."]) -> Float[Tensor, "n ..."]:
    """The public record nearest to each of ``x``: it uses the truth, a reference, no blind guess."""
    flat = public.flatten(1).double()
    found = [torch.cdist(c.flatten(1).double(), flat).argmin(dim=1) for c in x.split(500)]
    return public[torch.cat(found)]


def membership_from_inputs(
    candidates: Samples, member: Bool[Tensor, " n"], rng: torch.Generator
) -> np.ndarray:
    """Cross-validated scores of a classifier that knows inputs and labels, but no model.

    Kernel least squares (Gaussian plus linear kernel, closed form) on five stratified folds. On a
    random split it finds nothing; where members and non-members come from different sources, it tells
    how far they can be told apart without any leak.

    Returns:
        one score a candidate, of mean 0 and variance 1 in each fold; NaN for candidates beyond
        ``LARGEST``.
    """
    chosen = _balanced(member, rng)
    features = _features(candidates[chosen])
    bits = member[chosen].double()
    kernel = _kernel(features, child_rng(rng, "width"))
    fold = _folds(member[chosen], rng)
    scores = torch.full((len(member),), float("nan"), dtype=torch.float64)
    for number in range(FOLDS):
        inside, outside = fold != number, fold == number
        if not bool(outside.any()) or not bool(inside.any()):
            continue
        target = bits[inside] - bits[inside].mean()
        gram = kernel[inside][:, inside] + RIDGE * torch.eye(int(inside.sum()), dtype=torch.float64)
        factor = torch.linalg.cholesky(gram)
        weight = torch.cholesky_solve(target[:, None], factor)[:, 0]
        found = kernel[outside][:, inside] @ weight
        spread = found.std(correction=0).clamp(min=1e-12)
        scores[chosen[outside]] = (found - found.mean()) / spread
    return scores.numpy()


def _features(samples: Samples) -> Float[Tensor, "n features"]:
    """Standardised inputs (at most 256 of them, by random projection) and labels one-hot."""
    flat = samples.x.flatten(1).double()
    if flat.shape[1] > 256:
        rng = torch.Generator().manual_seed(0)
        flat = flat @ torch.randn(flat.shape[1], 256, generator=rng, dtype=torch.float64)
    flat = (flat - flat.mean(dim=0)) / flat.std(dim=0, correction=0).clamp(min=1e-6)
    if samples.y is None:
        return flat
    return torch.cat([flat, F.one_hot(samples.y).double()], dim=1)


def _kernel(features: Float[Tensor, "n features"], rng: torch.Generator) -> Float[Tensor, "n n"]:
    squares = torch.cdist(features, features).square()
    some = torch.randperm(len(features), generator=rng)[:300]
    width = squares[some][:, some].median().clamp(min=1e-12)
    linear = features @ features.T / features.shape[1]
    return torch.exp(-squares / width) + linear


def _balanced(member: Bool[Tensor, " n"], rng: torch.Generator) -> Int64[Tensor, " m"]:
    """At most ``LARGEST`` candidates, with members and non-members in their shares."""
    n = len(member)
    if n <= LARGEST:
        return torch.arange(n)
    mixed = torch.randperm(n, generator=child_rng(rng, "largest"))
    place = torch.empty(n, dtype=torch.float64)
    for bit in (True, False):
        mine = mixed[member[mixed] == bit]
        place[mine] = torch.arange(len(mine), dtype=torch.float64) / max(len(mine), 1)
    return place.argsort(stable=True)[:LARGEST].sort().values


def _folds(member: Bool[Tensor, " n"], rng: torch.Generator) -> Int64[Tensor, " n"]:
    """Number of each record's fold; members and non-members are dealt out evenly."""
    fold = torch.empty(len(member), dtype=torch.int64)
    for bit in (True, False):
        mine = (member == bit).nonzero().flatten()
        order = torch.randperm(len(mine), generator=child_rng(rng, "folds", bit))
        fold[mine[order]] = torch.arange(len(mine)) % FOLDS
    return fold
