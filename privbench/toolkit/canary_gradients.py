"""Gradient canaries: gradients of nobody's record, put into the steps of a private optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from privbench.contract import Observed, child_rng
from privbench.errors import TrainingError

LENGTH = 10.0  # times the clip: what clips right makes it just the clip, what does not is found out
RIDGE = 1e-5  # of a mean squared gradient: gradients of a batch may be alike


class PerSample(Protocol):
    """An optimiser that turns gradients of single records (``p.grad_sample``) into those of a step."""

    @property
    def params(self) -> list[nn.Parameter]: ...

    @property
    def grad_samples(self) -> list[Tensor]: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None: ...


class GradientCanaries:
    """Each canary has the place of a private record, and is in a step's batch when that record is.

    In every step a fair coin of its own decides whether it takes part. Its direction is drawn anew, at
    right angles to the gradients of the batch's records (as far as there is room) and to the other
    canaries: what is released along it is the canary, if it took part, and the noise.

    Args:
        count: canaries in a step.
        records: private records there are.
        clip: bound of one record's gradient.
        batch: by which the step's sum is divided.
        rng: only its seed is used; noise drawn from it stays the same.

    Raises:
        TrainingError: more canaries than records.
    """

    def __init__(
        self, count: int, records: int, clip: float, batch: int, rng: torch.Generator
    ) -> None:
        if count > records:
            raise TrainingError(
                f"{count} gradient canaries need as many records, there are {records}; ask for fewer "
                "with regime.learning.canaries=..."
            )
        self._clip, self._batch = clip, batch
        self._coin, self._way = child_rng(rng, "canary coins"), child_rng(rng, "canary ways")
        order = torch.randperm(records, generator=child_rng(rng, "canary records"))
        self._places = order[:count]
        self._drawn = torch.zeros(count, dtype=torch.bool)
        self._written: list[Observed] = []

    def watching(
        self, batches: Iterator[Int64[Tensor, " batch"]]
    ) -> Iterator[Int64[Tensor, " batch"]]:
        """The batches as they are; which canaries are in the newest is remembered."""
        for positions in batches:
            self._drawn = torch.isin(self._places, positions.cpu())
            yield positions

    def around(self, optimizer: PerSample) -> None:
        """Let every ``step`` of this optimiser carry canaries, and write down what it releases."""
        step = optimizer.step
        room = sum(p.numel() for p in optimizer.params)
        if room < len(self._places):
            raise TrainingError(
                f"{len(self._places)} gradient canaries need as many parameters, the network has {room}; "
                "ask for fewer with regime.learning.canaries=..."
            )

        def carrying(closure: Callable[[], float] | None = None) -> float | None:
            coins = torch.rand(len(self._places), generator=self._coin) < 0.5
            drawn = self._drawn.clone()
            ways = self._ways(optimizer, int(drawn.sum()))
            self._add(optimizer, ways[coins[drawn].to(ways.device)])
            found = step(closure)
            released = torch.cat([p.grad.flatten() for p in optimizer.params if p.grad is not None])
            seen = torch.zeros(len(drawn))
            seen[drawn] = (ways @ released * (self._batch / self._clip)).cpu().float()
            self._written.append(Observed(coins[None], drawn[None], seen[None]))
            return found

        optimizer.step = carrying  # type: ignore[method-assign]

    def observed(self) -> Observed:
        """Everything that was written down, step by step."""
        return Observed(*(torch.cat(parts) for parts in zip(*self._written, strict=True)))

    def _ways(self, optimizer: PerSample, count: int) -> Float[Tensor, "count parameters"]:
        """Directions of length 1, at right angles."""
        slopes = torch.cat([g.flatten(1) for g in optimizer.grad_samples], dim=1)
        ways = torch.randn(count, slopes.shape[1], generator=self._way).to(slopes)
        if not count:
            return ways
        if len(slopes) + count < slopes.shape[1]:
            gram = slopes @ slopes.T
            ridge = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
            factor = torch.linalg.cholesky(
                gram.double() + ridge * torch.eye(len(gram), device=gram.device)
            )
            shares = torch.cholesky_solve((slopes @ ways.T).double(), factor)
            ways = ways - shares.to(slopes).T @ slopes
        return torch.linalg.qr(ways.T)[0].T

    def _add(self, optimizer: PerSample, ways: Tensor) -> None:
        """As further rows of ``grad_sample``, before anything is clipped."""
        if not len(ways):
            return
        parts = (LENGTH * self._clip * ways).split([p.numel() for p in optimizer.params], dim=1)
        for p, own, part in zip(optimizer.params, optimizer.grad_samples, parts, strict=True):
            rows = part.reshape(-1, *p.shape).to(own)
            p.grad_sample = torch.cat([own, rows])  # type: ignore[attr-defined]
