"""DP-SGD: clipped per-sample gradients, Gaussian noise, Poisson batches, an accounted epsilon."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from privbench.contract import GaussianMechanism, LearningDefense, PrivacyCost, Wrapped
from privbench.errors import TrainingError, UsageError
from privbench.toolkit.canary_gradients import GradientCanaries

if TYPE_CHECKING:
    from opacus.optimizers import DPOptimizer

MOST = 100.0  # largest noise multiplier that is tried; under more of it nothing is learned


@dataclass(frozen=True, kw_only=True)
class DpSgd(LearningDefense):
    """Differentially private SGD, with Opacus' per-sample gradients, noise and PRV accountant.

    Batches are the harness' own Poisson batches, as the accounting needs them, and Opacus' noise
    comes from a seeded generator: a run can be repeated, and so its noise is no secret
    (``secure_mode`` is off; for an evaluation that is right, for a deployment it is not).

    Args:
        epsilon: budget to spend; the noise is the least that keeps it.
        delta: probability with which the guarantee may fail.
        clip: bound of one record's gradient over all parameters together.
        noise: noise multiplier; when given, ``epsilon`` is what it comes to, not a target.
        canaries: gradient canaries in each step, for an audit of what every step releases; models that
            others train by this recipe have none.
        spent, batch, records: epsilon of the whole training, expected batch and private records,
            filled in by ``resolved``.

    Raises:
        UsageError: a setting is out of range.

    Example::

        DpSgd(epsilon=3.0).resolved(records=600, batch=300, steps=60).cost().epsilon   # at most 3
    """

    source: ClassVar[str] = (
        "M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L. Zhang: "
        "Deep Learning with Differential Privacy, 2016, https://arxiv.org/abs/1607.00133; "
        "A. Yousefpour et al.: Opacus: User-Friendly Differential Privacy Library in PyTorch, "
        "2021, https://arxiv.org/abs/2109.12298; "
        "S. Gopi, Y. T. Lee, L. Wutschitz: Numerical Composition of Differential Privacy, 2021, "
        "https://arxiv.org/abs/2106.02848"
    )

    epsilon: float = 3.0  # for the whole training
    delta: float = 1e-5  # well below 1 / records
    clip: float = 1.0  # L2 norm
    noise: float | None = None  # standard deviation in units of clip; None = found from epsilon
    canaries: int = (
        0  # a step; 64 over 200 steps of a quarter of the records give 3,200 observations
    )
    spent: float | None = None  # None = not resolved yet
    batch: int | None = None  # expected records a step, by which the noised sum is divided
    records: int | None = None  # that may be drawn; needed where there are canaries

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and 0 < self.delta < 1 and self.clip > 0):
            raise UsageError(
                f"epsilon={self.epsilon}, delta={self.delta}, clip={self.clip}; expected "
                "epsilon > 0, 0 < delta < 1 and clip > 0, for example regime.learning.epsilon=3"
            )
        if self.noise is not None and not self.noise >= 0:
            raise UsageError(f"regime.learning.noise={self.noise}; expected 0 or more, or null")
        if type(self.canaries) is not int or self.canaries < 0:
            raise UsageError(f"regime.learning.canaries={self.canaries}; expected 0 or more")

    def resolved(self, records: int, batch: int, steps: int) -> DpSgd:
        """Noise multiplier and spent epsilon for that many records, expected batch and steps.

        Raises:
            TrainingError: no noise multiplier keeps this epsilon.
        """
        rate = min(1.0, batch / records)
        noise = self._least_noise(rate, steps) if self.noise is None else self.noise
        spent = self._spent(noise, rate, steps)
        if self.noise is None and spent > self.epsilon:
            raise self._out_of_reach(rate, steps)
        return replace(
            self, noise=noise, spent=spent, batch=batch, records=records if self.canaries else None
        )

    def wrap(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        batches: Iterator[Int64[Tensor, " batch"]],
        rng: torch.Generator,
    ) -> Wrapped:
        """Opacus' network and optimiser around the same parameters; the batches as they are.

        Raises:
            TrainingError: a layer mixes the records of a batch (batch norm), or is not resolved.
        """
        from opacus import GradSampleModule
        from opacus.validators import ModuleValidator

        faults = ModuleValidator.validate(net, strict=False)
        if faults:
            raise TrainingError(
                f"DP-SGD needs gradients of single records, but: {faults[0]}; use layers that treat "
                "records one by one, for example GroupNorm in place of BatchNorm"
            )
        # Inputs are records, not parameters: that they take no gradient is as it should be.
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        private = self._private(optimizer, rng)
        if not self.canaries:
            return Wrapped(GradSampleModule(net), private, batches)
        if self.records is None or self.batch is None:
            raise self._unresolved()
        canaries = GradientCanaries(self.canaries, self.records, self.clip, self.batch, rng)
        canaries.around(private)
        return Wrapped(
            GradSampleModule(net), private, canaries.watching(batches), canaries.observed
        )

    def _private(self, optimizer: Optimizer, rng: torch.Generator) -> DPOptimizer:
        """What clips, adds noise and steps."""
        from opacus.optimizers import DPOptimizer

        mechanism = self.mechanism()
        return DPOptimizer(
            optimizer,
            noise_multiplier=mechanism.noise,
            max_grad_norm=mechanism.clip,
            expected_batch_size=self.batch,
            generator=rng,
        )

    def cost(self) -> PrivacyCost:
        """What training spends; it covers the released model (and every model on the way to it)."""
        if self.spent is None:
            raise self._unresolved()
        return PrivacyCost(self.spent, self.delta)

    def mechanism(self) -> GaussianMechanism:
        """Clipping and noise."""
        if self.noise is None:
            raise self._unresolved()
        return GaussianMechanism(clip=self.clip, noise=self.noise)

    def bill(self, noise: float, rate: float, steps: int) -> float:
        """See ``LearningDefense.bill``."""
        return self._spent(noise, rate, steps)

    @property
    def audited(self) -> bool:
        """See ``LearningDefense.audited``."""
        return self.canaries > 0

    def quiet(self) -> DpSgd:
        """See ``LearningDefense.quiet``."""
        return replace(self, canaries=0, records=None)

    def _least_noise(self, rate: float, steps: int) -> float:
        """The least noise multiplier, within 1 %, that keeps ``epsilon``.

        The moments bound, quick at integer orders, finds one that is enough; the numerical bound,
        slow but tighter, then lowers it.
        """
        enough = _bisect(
            lambda noise: _moments(noise, rate, steps, self.delta) <= self.epsilon, 0.05, MOST
        )
        enough = MOST if enough is None else enough
        keeps = _bisect(
            lambda noise: self._spent(noise, rate, steps) <= self.epsilon, 0.8 * enough, enough
        )
        if keeps is None:
            raise self._out_of_reach(rate, steps)
        return keeps

    def _spent(self, noise: float, rate: float, steps: int) -> float:
        """Upper bound of the epsilon of ``steps`` Poisson-subsampled Gaussian steps."""
        if noise == 0:
            return math.inf
        if not 0.5 <= noise <= MOST:  # there the numerical bound's grid grows without end
            return _moments(noise, rate, steps, self.delta)
        return _numerical(noise, rate, steps, self.delta)

    def _out_of_reach(self, rate: float, steps: int) -> TrainingError:
        return TrainingError(
            f"no noise up to {MOST:.0f} x clip keeps epsilon {self.epsilon} at delta {self.delta} "
            f"over {steps} steps that each visit {rate:.1%} of the records; ask for more with "
            "regime.learning.epsilon=..., or train less with regime.epochs=... or regime.batch=..."
        )

    def _unresolved(self) -> UsageError:
        return UsageError(
            "DP-SGD is not resolved: its noise depends on records, batch and steps; "
            "call resolved(records, batch, steps) first"
        )


def _moments(noise: float, rate: float, steps: int, delta: float) -> float:
    """Upper bound of epsilon by Renyi moments of integer order."""
    from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

    orders = list(range(2, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "best order is the largest": a bound all the same
        moments = compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
        return float(get_privacy_spent(orders=orders, rdp=moments, delta=delta)[0])


def _numerical(noise: float, rate: float, steps: int, delta: float) -> float:
    """Upper bound of epsilon by numerical composition of privacy losses."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        # Logarithms of 0 in branches not taken; a loose first bound.
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta=delta))


def _bisect(keeps: Callable[[float], bool], low: float, high: float) -> float | None:
    """The least number, within 1 %, between ``low`` and ``high`` that keeps; None if none does."""
    if not keeps(high):
        return None
    while high - low > 0.01 * high:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high
