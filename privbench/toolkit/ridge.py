"""Ridge regression in closed form, its strength chosen on the training pairs alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-18, 9))
"""Tried penalties, per pair and standardised feature."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted affine map from features to targets.

    A. E. Hoerl, R. W. Kennard: Ridge Regression: Biased Estimation for Nonorthogonal Problems,
    Technometrics 1970, https://doi.org/10.1080/00401706.1970.10488634; strength by generalised
    cross-validation: G. H. Golub, M. Heath, G. Wahba: Generalized Cross-Validation as a Method for
    Choosing a Good Ridge Parameter, Technometrics 1979,
    https://doi.org/10.1080/00401706.1979.10489751.
    We differ: one strength is chosen for all targets together.
    """

    centre: Float[Tensor, " p"]
    scale: Float[Tensor, " p"]
    matrix: Float[Tensor, "p q"]
    offset: Float[Tensor, " q"]
    strength: float

    def __call__(self, features: Float[Tensor, "n p"]) -> Float[Tensor, "n q"]:
        """Predicted targets, float64."""
        return (features.double() - self.centre) / self.scale @ self.matrix + self.offset


def fit_ridge(features: Float[Tensor, "n p"], targets: Float[Tensor, "n q"]) -> Ridge:
    """Standardise, choose the strength, solve the normal equations by Cholesky in float64.

    With fewer pairs than features the equations are solved in their dual form, which is smaller.
    """
    x, y = features.double(), targets.double()
    centre, offset = x.mean(dim=0), y.mean(dim=0)
    spread = x.std(dim=0, unbiased=False)
    scale = torch.where(spread > 1e-12 * (1 + centre.abs()), spread, torch.ones_like(spread))
    z, y = (x - centre) / scale, y - offset
    dual = len(z) < z.shape[1]
    gram = z @ z.T if dual else z.T @ z
    projected = y if dual else z.T @ y
    strength = _best(gram, projected, y, dual)
    gram.diagonal().add_(strength)
    solved = torch.cholesky_solve(projected, torch.linalg.cholesky(gram))
    matrix = z.T @ solved if dual else solved
    return Ridge(centre, scale, matrix, offset, strength)


def _best(gram: Tensor, projected: Tensor, y: Tensor, dual: bool) -> float:
    """The strength with the least generalised cross-validation error."""
    n, total = len(y), y.square().sum()
    values, vectors = _spectrum(gram)
    values = values.clamp(min=0)
    energy = (vectors.T @ projected).square().sum(dim=1)
    if not dual:  # of the left singular vectors, where there are any
        kept = values > 1e-12 * values.max()
        energy = torch.where(kept, energy / values.clamp(min=1e-300), torch.zeros_like(energy))
    strengths = n * torch.tensor(STRENGTHS, dtype=torch.float64, device=y.device)
    shrunk = strengths[:, None] / (values + strengths[:, None])
    residual = (total - (energy * (1 - shrunk.square())).sum(dim=1)).clamp(min=0)
    free = n - 1 - (1 - shrunk).sum(dim=1)
    error = torch.where(free > 0.02 * n, residual / free.square(), torch.inf)
    return float(strengths[error.argmin()])


def _spectrum(gram: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues and vectors.

    LAPACK's divide and conquer gives up on some matrices of low rank (units that are silent for every
    record make rows of zeros); lifted off zero by a trifle the same matrix is solved.
    """
    try:
        values, vectors = torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:
        lift = 1e-10 * gram.diagonal().mean().clamp(min=1e-300)
        values, vectors = torch.linalg.eigh(gram + lift * torch.eye(len(gram)).to(gram))
        values = values - lift
    return values, vectors
