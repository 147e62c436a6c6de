"""Model inversion by climbing a class's confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Attack, InversionGuess, Net, View, counted
from privbench.errors import NotApplicable, UsageError
from privbench.toolkit.priors import GREY, expected

STARTS = ("mean", "grey")


@dataclass(frozen=True, kw_only=True)
class MiFace(Attack):
    """MI-Face: which input does the released model take for each class, above all others?

    M. Fredrikson, S. Jha, T. Ristenpart: Model Inversion Attacks that Exploit Confidence Information
    and Basic Countermeasures, ACM CCS 2015, https://doi.org/10.1145/2810103.2813677 (algorithm 1).

    We differ: it starts at the mean auxiliary input (theirs at black) and descends on the negative
    *logarithm* of the confidence, whose slope does not vanish where a confident network gives a
    class almost nothing; every class stops on its own, at its best input so far.

    Args:
        steps: of gradient descent, at most (alpha in the paper).
        patience: steps without a lower cost after which a class stops (beta).
        confidence: at which a class stops (1 - gamma is the paper's cost bound).
        rate: step length (lambda).
        start: ``mean`` or ``grey``.

    Example::

        privbench threat=released attack=mi_face
    """

    goal: ClassVar[str] = "inversion"
    needs: ClassVar[tuple[str, ...]] = ("released_weights", "auxiliary")
    source: ClassVar[str] = (
        "M. Fredrikson, S. Jha, T. Ristenpart, Model Inversion Attacks that Exploit Confidence "
        "Information and Basic Countermeasures, 2015, https://doi.org/10.1145/2810103.2813677"
    )

    steps: int = 1000  # the paper's 5000 change nothing where all classes have stopped
    patience: int = 100
    confidence: float = 0.99
    rate: float = 0.1
    start: str = "mean"

    def run(self, view: View, rng: torch.Generator) -> InversionGuess:
        """One input for each class; draws nothing.

        Raises:
            NotApplicable: the seat lacks the released weights, or auxiliary inputs.
            UsageError: an unknown start.
        """
        public = view.public
        if public.net is None or public.auxiliary is None:
            raise NotApplicable(
                "mi_face climbs the gradient of the released model (threat=released) from an input like "
                "the auxiliary ones (data.split=thirds keeps some), and lacks one of the two"
            )
        if self.start not in STARTS:
            raise UsageError(
                f"attack.start='{self.start}' is unknown; expected {' or '.join(STARTS)}"
            )
        shape = public.auxiliary.x.shape[1:]
        first = expected(public, shape) if self.start == "mean" else torch.full(shape, GREY)
        return InversionGuess(self._climb(public.net, first.to(view.device)).cpu())

    def _climb(self, net: Net, first: Tensor) -> Float[Tensor, "classes ..."]:
        module = net.module().to(first.device).requires_grad_(False)
        with torch.no_grad():
            classes = module(first[None]).shape[1]
        x = first.expand(classes, *first.shape).clone()
        every = torch.arange(classes, device=first.device)
        best = x.clone()
        least = torch.full((classes,), torch.inf, device=first.device)
        waited = torch.zeros_like(every)
        going = torch.ones_like(every, dtype=torch.bool)
        for _ in counted(range(self.steps)):
            x.requires_grad_()
            cost = -module(x).log_softmax(dim=1)[every, every]
            (slope,) = torch.autograd.grad(cost.sum(), x)
            with torch.no_grad():
                better = going & (cost < least)
                best[better], least[better] = x[better], cost[better]
                waited = torch.where(better, 0, waited + 1)
                going &= (waited < self.patience) & (cost.exp().reciprocal() < self.confidence)
                if not bool(going.any()):
                    break
                moved = (x - self.rate * slope).clamp(0, 1)
            x = torch.where(going.view(-1, *[1] * first.ndim), moved, x.detach())
        return best
