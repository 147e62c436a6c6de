"""DP-SGD with bugs that people have shipped; importable by name, as recipes need it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from opacus.optimizers import DPOptimizer
from torch.optim import Optimizer

from defenses.dpsgd import DpSgd


@dataclass(frozen=True, kw_only=True)
class NoiseHalved(DpSgd):
    """Half of the noise that the accountant counts."""

    def _private(self, optimizer: Optimizer, rng: torch.Generator) -> DPOptimizer:
        return replace(DpSgd(**vars(self)), noise=self.noise / 2)._private(optimizer, rng)


@dataclass(frozen=True, kw_only=True)
class NoiseAveraged(DpSgd):
    """Noise of the size that fits the average, added to the sum: divided by the batch twice."""

    def _private(self, optimizer: Optimizer, rng: torch.Generator) -> DPOptimizer:
        quiet = replace(DpSgd(**vars(self)), noise=self.noise / self.batch)
        return quiet._private(optimizer, rng)


class _NoClip(DPOptimizer):
    def clip_and_accumulate(self) -> None:
        clip, self.max_grad_norm = self.max_grad_norm, float("inf")
        super().clip_and_accumulate()
        self.max_grad_norm = clip


class _BatchClip(_NoClip):
    def clip_and_accumulate(self) -> None:
        super().clip_and_accumulate()
        norm = torch.sqrt(sum(p.summed_grad.square().sum() for p in self.params))
        factor = min(1.0, self.max_grad_norm * self.expected_batch_size / float(norm))
        for p in self.params:
            p.summed_grad *= factor


@dataclass(frozen=True, kw_only=True)
class ClippingSkipped(DpSgd):
    """Gradients are added up as long as they are."""

    def _private(self, optimizer: Optimizer, rng: torch.Generator) -> DPOptimizer:
        return _become(super()._private(optimizer, rng), _NoClip)


@dataclass(frozen=True, kw_only=True)
class ClippingPerBatch(DpSgd):
    """The mean gradient is clipped, in place of each record's."""

    def _private(self, optimizer: Optimizer, rng: torch.Generator) -> DPOptimizer:
        return _become(super()._private(optimizer, rng), _BatchClip)


@dataclass(frozen=True, kw_only=True)
class SamplingUnderReported(DpSgd):
    """The accountant counts batches of half the size of those that are drawn."""

    def resolved(self, records: int, batch: int, steps: int) -> DpSgd:
        counted = DpSgd(**vars(self)).resolved(records, batch // 2, steps)
        return replace(super().resolved(records, batch, steps), spent=counted.spent)


def _become(optimizer: DPOptimizer, kind: type[DPOptimizer]) -> DPOptimizer:
    optimizer.__class__ = kind
    return optimizer
