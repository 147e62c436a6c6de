"""What the released model says of some inputs, by its weights or by asking it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract import View
from privbench.errors import NotApplicable, TrainingError
from privbench.toolkit.densities import FLOOR

LARGEST = 1e6  # of a logit: an infinite one stands for certainty, not for NaN
ROWS = 4096  # inputs in one forward pass: bounds memory, whatever the number of candidates


def log_probabilities(view: View, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
    """Log-probabilities of every class: from the released weights if held, else from the oracle.

    Returns:
        float64 on the CPU, not below ``FLOOR``: an oracle's zero is a number too small for float32.

    Raises:
        NotApplicable: the seat has neither, or its oracle answers labels alone.
        AttackError: the budget of queries ends before the inputs do.
        TrainingError: an answer is NaN.
    """
    if view.public.net is not None:
        module = view.public.net.module().to(view.device)
        with torch.no_grad():
            parts = [module(part.to(view.device)).double() for part in x.split(ROWS)]
        logits = torch.cat(parts).clamp(-LARGEST, LARGEST)
        return numbers(logits.log_softmax(-1).clamp(min=FLOOR).cpu())
    if view.oracle is None:
        raise NotApplicable(
            "the attack asks the released model, and this seat holds neither its weights nor an "
            "oracle; choose threat=released or threat=api"
        )
    answers = view.oracle(x)
    if answers.ndim != 2:
        raise NotApplicable(
            "the attack needs probabilities of every class, the oracle answers labels; choose "
            "threat.answers=probabilities"
        )
    return numbers(answers.double().cpu().log().clamp(min=FLOOR))


def choices(view: View, x: Float[Tensor, "n ..."]) -> Int64[Tensor, " n"]:
    """The released model's first choice for each input: any oracle will do.

    Raises:
        NotApplicable: the seat has neither weights nor an oracle.
        AttackError: the budget of queries ends before the inputs do.
    """
    if view.public.net is None and view.oracle is not None:
        answers = view.oracle(x)
        return answers.long().cpu() if answers.ndim == 1 else answers.argmax(dim=1).cpu()
    return log_probabilities(view, x).argmax(dim=1)


def numbers(answers: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """The same answers, if none is NaN.

    Raises:
        TrainingError: one is.
    """
    broken = int(answers.isnan().any(dim=1).sum())
    if broken:
        raise TrainingError(
            f"the model answers NaN to {broken} of {len(answers)} inputs, and nothing can be read from "
            "that; train it again, for example with a smaller rate (regime.lr=...)"
        )
    return answers
