"""What to doubt of a target that nobody saw being trained: its answers, and shadow models beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from privbench.contract import Fitted, Net, View
from privbench.toolkit.shadows import shadow_logits

APART = 0.1  # between accuracies on records of one's own, beyond which recipes differ
STRANGERS = 0.2  # the same on others, which fewer or other records move too


def unlike(views: Sequence[View], own: float | None, others: float | None) -> tuple[str, ...]:
    """A sentence where shadow models fit records far better, or far worse, than the target does.

    Args:
        views: attacked ones, of which the first with shadow models counts.
        own: accuracy of the target on its training records; None = not known.
        others: the same on non-members.
    """
    for view in views:
        for fit in view.fitted:
            found = _accuracies(view, fit)
            if found is None or own is None or others is None:
                continue
            inside, outside = found
            if abs(inside - own) <= APART and abs(outside - others) <= STRANGERS:
                return ()
            return (
                f"shadow models are right on {inside:.2f} of their own records and {outside:.2f} of "
                f"others, the target on {own:.2f} and {others:.2f}: another recipe trained it, or many more "
                "records, and what shadow models say of it is worth less; set regime.epochs, regime.lr, "
                "regime.batch and regime.optimizer to those that it was trained with",
            )
    return ()


def softened(net: Net, x: Float[Tensor, "n ..."]) -> tuple[str, ...]:
    """A sentence where a model gives probabilities, which attacks would take for logits.

    Args:
        x: some records.
    """
    with torch.no_grad():
        answers = net.module()(x).float()
    summed = answers.ndim == 2 and bool(((answers.sum(dim=1) - 1).abs() < 1e-3).all())
    if not summed or bool((answers < 0).any()):
        return ()
    return (
        "the model gives probabilities, and logits are expected: attacks take a softmax of them once more "
        "and see far less; hand over the model without its last softmax",
    )


def _accuracies(view: View, fit: Fitted) -> tuple[float, float] | None:
    """Of shadow models, on records that each was trained on, and on those that it was not."""
    offline = fit.facts.get("pairing") == "auxiliary"
    pool = view.public.auxiliary if offline else view.public.candidates
    if "signature" not in fit.facts or pool is None or pool.y is None:
        return None
    member = fit.tensors["member"]
    right = shadow_logits(fit, view.topology.net, pool.x).argmax(dim=2) == pool.y
    return float(right[member].float().mean()), float(right[~member].float().mean())
