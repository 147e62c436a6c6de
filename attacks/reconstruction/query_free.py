"""Invert activations through a stand-in for layers that nobody can ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, ReconstructionGuess, View, child_rng
from privbench.toolkit.descent import Descent, started
from privbench.toolkit.moments import Moments
from privbench.toolkit.standin import (
    StandIn,
    guessed,
    labelled,
    labels_of,
    loss_of,
    rounds,
    snapshots,
    stand_in_of,
    unseen,
)
from privbench.toolkit.traffic import Seen, selected

ROWS = 256  # victims that are inverted side by side: bounds memory
CROSSED = 2000  # latest rows of which moments are taken: older ones were made by other weights


@dataclass(frozen=True, kw_only=True)
class QueryFree(Attack):
    """Train a shadow of the unknown layers on auxiliary data, then invert through the shadow.

    Z. He, T. Zhang, R. B. Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019,
    https://doi.org/10.1145/3359789.3359824 (section 6, query-free).

    We differ: the shadow's activations are also drawn to the means and covariances of those that
    crossed, class by class where the seat is sent labels, because the task alone leaves open which unit
    computes what; a seat that knows a part of the layers behind what it sees ties the shadow by that
    part and trains the rest as well; total variation is of absolute differences, and the error of the
    inversion is relative to what was seen. ``attack.tie=0`` is nearer theirs.

    Args:
        training: steps of Adam on the shadow.
        batch: auxiliary records a step.
        tie: weight of the moments beside the task; 0 = the task alone.
        learning: rate of these steps; it falls to 0.
        steps: of the inversion.
        rate: of its steps at the start, in units of the input's range.
        smooth: weight of mean total variation beside the relative error.

    Example::

        privbench regime=split threat=split_server attack=query_free victims=32
    """

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("own_weights", "auxiliary")
    reads: ClassVar[tuple[str, ...]] = ("activation",)
    source: ClassVar[str] = (
        "Z. He, T. Zhang, R. B. Lee, Model Inversion Attacks Against Collaborative Inference, 2019, "
        "https://doi.org/10.1145/3359789.3359824"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType({"training": 100, "steps": 60})

    training: int = 1000
    batch: int = 256  # of fewer, covariances are noise
    tie: float = 10.0
    learning: float = 1e-2
    steps: int = 300
    rate: float = 0.1
    smooth: float = 0.1

    def run(self, view: View, rng: torch.Generator) -> ReconstructionGuess:
        """An input for each victim; the mean auxiliary input for one that was not seen.

        Raises:
            NotApplicable: no labelled auxiliary records, or no weights behind what is seen.
        """
        blank = unseen(view)
        start = started("typical", view.public, tuple(blank.shape[1:]))

        def work(seen: Seen, target: Tensor) -> Tensor:
            stand_in = self.shadow(view, seen, rng).settled()
            parts = target.split(ROWS)
            return torch.cat([self._inverted(stand_in, p, seen.seen.units, start) for p in parts])

        return guessed(view, blank, work)

    def shadow(self, view: View, seen: Seen, rng: torch.Generator) -> StandIn:
        """The network with the seat's weights of the last step, its unknown part trained on the task.

        Raises:
            NotApplicable: as ``run``.
        """
        auxiliary, loss = labelled(view), loss_of(view)
        step = snapshots(view, seen)[-1]
        stand_in = stand_in_of(view, seen, step, child_rng(rng, "start"))
        if not stand_in.free:
            return stand_in
        moments = self._moments(view, seen, rng) if self.tie else None
        draws = child_rng(rng, "batches")
        adam = torch.optim.Adam(stand_in.free.values(), lr=self.learning)
        fall = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, self.training)
        for _ in rounds(self.training, (step,)):
            chosen = torch.randint(len(auxiliary), (self.batch,), generator=draws)
            batch = auxiliary[chosen.to(view.device)]
            answer, labels = stand_in(batch.x), cast(Tensor, batch.y)
            error = loss(answer.output, labels)
            if moments is not None:
                made = selected(answer.activation, seen.seen.units)
                error = error + self.tie * moments.distance(made, labels)
            adam.zero_grad()
            error.backward()
            adam.step()
            fall.step()
        return stand_in

    @staticmethod
    def _moments(view: View, seen: Seen, rng: torch.Generator) -> Moments:
        """Those of the rows that crossed last."""
        rows = seen.seen.rows
        last = rows[:, 0].argsort(stable=True)[-CROSSED:]
        payload = seen.seen.payload[last].float().to(view.device)
        return Moments(payload, labels_of(view, rows[last]), child_rng(rng, "mixture"))

    def _inverted(
        self,
        stand_in: StandIn,
        target: Float[Tensor, "n units ..."],
        units: tuple[int, ...],
        start: Tensor,
    ) -> Float[Tensor, "n ..."]:
        scale = target.square().mean().clamp(min=1e-12)

        def errors(x: Tensor) -> Tensor:
            found = selected(stand_in.activation(x), units)
            return (found - target).square().flatten(1).mean(dim=1) / scale

        descent = Descent(steps=self.steps, rate=self.rate, smooth=self.smooth)
        first = start.to(target).expand(len(target), *start.shape)
        return descent.run(errors, first, start.ndim)
