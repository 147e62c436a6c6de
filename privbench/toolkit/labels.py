"""Which labels are behind a gradient: what the last layer's tells, of one row and of many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.optimize import nnls
from torch import Tensor, nn

from privbench.contract import Samples
from privbench.toolkit.updates import Observed


class Last(NamedTuple):
    """The gradient of the last layer; None = it has no such tensor, or nobody told of it."""

    bias: Float[Tensor, " classes"] | None
    weight: Float[Tensor, "classes features"] | None

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.bias if self.weight is None else self.weight)  # type: ignore[arg-type]


def last_of(gradient: Mapping[str, Tensor], module: nn.Module) -> Last | None:
    """The last linear layer's part of a gradient; None where it holds nothing of it."""
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Linear)]
    if not layers:
        return None
    name = layers[-1][0]
    prefix = f"{name}." if name else ""
    bias, weight = gradient.get(f"{prefix}bias"), gradient.get(f"{prefix}weight")
    return None if bias is None and weight is None else Last(bias, weight)


def label_of_one(last: Last) -> int:
    """The label behind the gradient of one row.

    Row c of it is the last hidden activation times (probability of c less 1 for the label): of the
    bias the only negative entry is the label's, of the weight its row is the longest, and where
    activations are not negative the only negative one. B. Zhao, K. R. Mopuri, H. Bilen: iDLG:
    Improved Deep Leakage from Gradients, 2020, https://arxiv.org/abs/2001.02610.
    """
    if last.bias is not None:
        return int(last.bias.argmin())
    weight = last.weight
    if weight is None:
        raise ValueError("neither weight nor bias")
    if len(weight) == 2:  # both rows are equally long
        return int(weight.sum(dim=1).argmin())
    return int(weight.norm(dim=1).argmax())


def label_counts(
    known: Observed, module: nn.Module, auxiliary: Samples | None, rows: int
) -> Int64[Tensor, " classes"] | None:
    """How many of some rows have each label; None = the gradient does not tell.

    One row: see ``label_of_one``. Of more rows the gradient is a mixture of what records of each class
    give on average, and its shares are found by least squares among all mixtures. A. Wainakh et
    al.: User-Level Label Leakage from Gradients in Federated Learning, 2021,
    https://arxiv.org/abs/2105.09369, estimate two numbers, the mean impact of a label and its
    offset; we differ: both are known for each class from auxiliary records under the same weights.

    Args:
        known: what the seat knows; its ``rows`` may be more than ``rows``.
        module: holds ``known.weights``.
        rows: over how many rows the labels are dealt.
    """
    last = last_of(known.gradient, module)
    if last is None:
        return None
    if len(known.rows) == 1:
        return nn.functional.one_hot(torch.tensor(label_of_one(last)), last.classes) * rows
    if not known.mean or auxiliary is None or auxiliary.y is None or not len(auxiliary):
        return None
    return _with_present(_mixture(last, module, auxiliary), _entries(last), rows)


def counts_without_model(
    last: Last, rows: int, shares: Float[Tensor, " classes"]
) -> Int64[Tensor, " classes"]:
    """How many of some rows have each label, where the network's weights are not known.

    A negative entry has its label at least once (A. Wainakh et al. 2021, see ``label_counts``, which
    deal the rest by the mean impact of a label; we differ: of a bias the entry is a class's mean
    probability less its share of the rows, and the mean probability is taken to be its prior share).

    Args:
        last: of the mean loss over these rows.
        shares: how common each class is elsewhere.
    """
    entries = _entries(last)
    impact = 1.0
    if last.bias is None:  # in units of the hidden activation: those of the mean impact
        impact = float(-entries.clamp(max=0).sum()) * (1 + 1 / len(entries))
    return _with_present(shares - entries / max(impact, 1e-30), entries, rows)


def _with_present(
    shares: Float[Tensor, " classes"], entries: Float[Tensor, " classes"], rows: int
) -> Int64[Tensor, " classes"]:
    """Rows dealt by shares, after each class of a negative entry got one."""
    shares = shares.clamp(min=1e-12)
    present = entries < 0
    if int(present.sum()) > rows:  # several local steps: signs are no proof
        return dealt(shares / shares.sum(), rows)
    rest = (shares / shares.sum() * rows - present.double()).clamp(min=1e-9)
    return present.long() + dealt(rest / rest.sum(), rows - int(present.sum()))


def dealt(shares: Float[Tensor, " classes"], rows: int) -> Int64[Tensor, " classes"]:
    """So many rows by shares; the largest remainders are rounded up."""
    wanted = shares * rows
    counts = wanted.floor().long()
    left = rows - int(counts.sum())
    counts[(wanted - counts).argsort(descending=True, stable=True)[:left]] += 1
    return counts


def _entries(last: Last) -> Float[Tensor, " classes"]:
    """One number a class, which its label draws down: of the bias, or a row of the weight added up."""
    entries = last.bias if last.weight is None or last.bias is not None else last.weight.sum(dim=1)
    if entries is None:
        raise ValueError("neither weight nor bias")
    return entries.detach().double().cpu()


def _mixture(last: Last, module: nn.Module, auxiliary: Samples) -> Float[Tensor, " classes"]:
    """Shares of the classes whose mean gradients mix to this one."""
    of_each, labels = _gradients(last, module, auxiliary)
    classes = last.classes
    means = torch.zeros(classes, of_each.shape[1], dtype=torch.float64)
    overall = of_each.mean(dim=0)
    for label in range(classes):
        alike = of_each[labels == label]
        means[label] = alike.mean(dim=0) if len(alike) else overall
    goal = _entries(last)
    spread = (of_each - means[labels]).std(dim=0, correction=0).clamp(min=1e-12)
    sure = 1e3 * float((means / spread).abs().max().clamp(min=1.0))  # that shares add up to one
    rows = np.concatenate([(means / spread).T.numpy(), np.full((1, classes), sure)])
    wanted = np.append((goal / spread).numpy(), sure)
    shares = torch.as_tensor(nnls(rows, wanted)[0])
    return shares / shares.sum()


def _gradients(
    last: Last, module: nn.Module, auxiliary: Samples
) -> tuple[Float[Tensor, "n entries"], Int64[Tensor, " n"]]:
    """What each auxiliary record gives for the entries that are looked at, and its label."""
    if auxiliary.y is None:
        raise ValueError("labels are needed")
    hidden: list[Tensor] = []
    layer = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    hook = layer.register_forward_pre_hook(lambda _, given: hidden.append(given[0].detach()))
    try:
        with torch.no_grad():
            said = module(auxiliary.x).softmax(dim=1).double()
    finally:
        hook.remove()
    slopes = said - nn.functional.one_hot(auxiliary.y, said.shape[1])
    if last.bias is None:
        slopes = slopes * hidden[-1].double().flatten(1).sum(dim=1, keepdim=True)
    return slopes, auxiliary.y
