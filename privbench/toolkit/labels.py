"""Which labels are behind a gradient: what the bias of the last layer tells."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from privbench.contract import Samples
from privbench.toolkit.updates import Observed


def label_counts(
    known: Observed, module: nn.Module, auxiliary: Samples | None, rows: int
) -> Int64[Tensor, " classes"] | None:
    """How many of some rows have each label; None = the gradient does not tell.

    For one row the only negative entry is its label: B. Zhao, K. R. Mopuri, H. Bilen: iDLG: Improved
    Deep Leakage from Gradients, 2020, https://arxiv.org/abs/2001.02610. For more, the entry of a class
    is its mean probability less the share of rows that have it: A. Wainakh et al.: User-Level Label
    Leakage from Gradients in Federated Learning, 2021, https://arxiv.org/abs/2105.09369. We differ:
    the mean probability is that of the auxiliary records under the same weights.

    Args:
        known: what the seat knows; its ``rows`` may be more than ``rows``.
        module: holds ``known.weights``.
        rows: over how many rows the labels are dealt.
    """
    *_, (name, parameter) = module.named_parameters()
    if parameter.ndim != 1 or name not in known.gradient:
        return None
    slope = known.gradient[name]
    if len(known.rows) == 1:
        return torch.nn.functional.one_hot(slope.argmin(), len(slope)) * rows
    if not known.mean or auxiliary is None or not len(auxiliary):
        return None
    with torch.no_grad():
        said = module(auxiliary.x).softmax(dim=1)
        prior = said.mean(dim=0)
    share = (prior - slope).clamp(min=0)
    total = float(share.sum())
    if total <= 0:
        return None
    wanted = share * (rows / total)
    counts = wanted.floor().long()
    left = rows - int(counts.sum())
    counts[(wanted - counts).argsort(descending=True, stable=True)[:left]] += 1
    return counts
