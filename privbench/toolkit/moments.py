"""How unlike two sets of activations are, by means and covariances: it names units, which a task does not."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

DIRECTIONS = 256  # of what is compared, at most: covariances have its square


class Moments:
    """Means and covariances of activations, of each class and of all.

    Features beyond ``DIRECTIONS`` are first mixed at random, so that covariances of all still count.

    Args:
        seen: activations of records that nobody knows, ``(n, units, ...)``.
        labels: of each; -1 where it is not known.
        rng: of the mixture.

    Example::

        moments = Moments(payload, labels, child_rng(rng, "mixture"))
        loss = moments.distance(stand_in.activation(x), y)
    """

    def __init__(
        self,
        seen: Float[Tensor, "n units ..."],
        labels: Int64[Tensor, " n"],
        rng: torch.Generator,
    ) -> None:
        flat = seen.flatten(1)
        self._mixture = None
        if flat.shape[1] > DIRECTIONS:
            drawn = torch.randn(flat.shape[1], DIRECTIONS, generator=rng)
            self._mixture = (drawn / flat.shape[1] ** 0.5).to(flat)
        # few records of a class have no covariance worth matching
        counted = torch.bincount(labels[labels >= 0], minlength=1)
        self._classes = (counted >= 8).nonzero().flatten().to(flat.device)
        means, spreads = self._moments(flat, labels.to(flat.device))
        self._means, self._spreads = means, spreads
        self._size = spreads[-1].diagonal().mean().clamp(min=1e-12)
        self._sizes = spreads.square().sum(dim=(1, 2)).clamp(min=1e-12)

    def distance(
        self, made: Float[Tensor, "m units ..."], labels: Int64[Tensor, " m"]
    ) -> Float[Tensor, ""]:
        """Of other activations: 0 where all moments agree; of classes that it lacks none is compared."""
        means, spreads = self._moments(made.flatten(1), labels)
        there = self._shares(labels).sum(dim=0) >= 2
        apart = (means - self._means).square().mean(dim=1) / self._size
        turned = (spreads - self._spreads).square().sum(dim=(1, 2)) / self._sizes
        return (apart + turned)[there].mean()

    def _shares(self, labels: Int64[Tensor, " n"]) -> Float[Tensor, "n sets"]:
        """Which rows belong to which class that is compared; the last set is all of them."""
        of_class = (labels[:, None] == self._classes[None]).float()
        return torch.cat([of_class, torch.ones(len(labels), 1, device=labels.device)], dim=1)

    def _moments(
        self, flat: Float[Tensor, "n f"], labels: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "sets k"], Float[Tensor, "sets k k"]]:
        mixed = flat if self._mixture is None else flat @ self._mixture
        shares = self._shares(labels).to(flat)
        shares = shares / shares.sum(dim=0).clamp(min=1)
        means = shares.T @ mixed
        weighed = (shares.T[:, :, None] * mixed).transpose(1, 2)  # sets, k, n
        return means, weighed @ mixed - means[:, :, None] * means[:, None, :]
