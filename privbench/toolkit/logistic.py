"""Logistic regression, solved exactly: an attack model that is the same on every run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privbench.errors import NotApplicable

STEPS = 50  # of Newton: it stops far earlier


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted model: log-odds of features, in units of their spread where it was fitted."""

    mean: Float[Tensor, " features"]
    spread: Float[Tensor, " features"]
    weight: Float[Tensor, " features_and_one"]

    def __call__(self, features: Float[Tensor, "n features"]) -> Float[Tensor, " n"]:
        """Log-odds of a yes."""
        z = _scaled(features, self.mean, self.spread)
        return z @ self.weight


def fit_logistic(
    features: Float[Tensor, "n features"], said: Bool[Tensor, " n"], penalty: float = 1.0
) -> Logistic:
    """Maximum likelihood with a ridge penalty, by Newton's method in float64.

    J. Berkson: Application of the Logistic Function to Bio-Assay, 1944,
    https://doi.org/10.1080/01621459.1944.10500699.

    Args:
        features: finite.
        said: yes or no; both occur.
        penalty: on squared weights (not on the constant), in units of records.

    Raises:
        NotApplicable: only one answer occurs.
    """
    if bool(said.all()) or not bool(said.any()):
        raise NotApplicable(
            f"an attack model needs records of both kinds, and all {len(said)} are of one"
        )
    x = features.double()
    mean, spread = x.mean(dim=0), x.std(dim=0)
    z, y = _scaled(x, mean, spread), said.double()
    ridge = torch.full((z.shape[1],), penalty, dtype=torch.float64)
    ridge[-1] = 1e-6
    weight = torch.zeros(z.shape[1], dtype=torch.float64)
    for _ in range(STEPS):
        p = torch.sigmoid(z @ weight)
        slope = z.T @ (p - y) + ridge * weight
        bend = (z * (p * (1 - p))[:, None]).T @ z + torch.diag(ridge)
        step = torch.cholesky_solve(slope[:, None], torch.linalg.cholesky(bend))[:, 0]
        weight = weight - step.clamp(-4, 4)  # far from the answer a whole step can overshoot
        if float(step.abs().max()) < 1e-9:
            break
    return Logistic(mean, spread, weight)


def _scaled(features: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """In units of their spread (what never varies says nothing), and a constant."""
    z = (features.double() - mean) / spread.clamp(min=1e-12)
    z = torch.where(spread > 1e-12, z, torch.zeros_like(z)).clamp(-20, 20)
    return torch.cat([z, z.new_ones(len(z), 1)], dim=1)
