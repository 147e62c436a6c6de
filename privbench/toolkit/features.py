"""What a model shows of labelled records, as features of an attack model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import Recipe, Samples, copies_of
from privbench.errors import NotApplicable
from privbench.toolkit.densities import FLOOR, confidence

TOP = 5  # of the sorted answer
ROWS = 256  # records whose gradients are held at once


def of_answers(log_p: Float[Tensor, "n classes"], samples: Samples) -> Float[Tensor, "n features"]:
    """The sorted answer, the label's part in it, its entropy, and whether it is right; float64."""
    if samples.y is None:
        raise NotApplicable("features of an answer need labels, and these records have none")
    log_p = log_p.double().log_softmax(-1).clamp(min=FLOOR)
    own = log_p.gather(1, samples.y[:, None])
    entropy = -(log_p.exp() * log_p).sum(dim=1, keepdim=True)
    right = torch.eq(log_p.argmax(dim=1), samples.y).double()[:, None]
    sure = confidence(log_p, samples.y)[:, None]
    best = log_p.topk(min(TOP, log_p.shape[1]), dim=1).values
    return torch.cat([best, own, sure, entropy, right], dim=1)


def gradient_norms(
    module: nn.Module, samples: Samples, device: str = "cpu"
) -> Float[Tensor, "n tensors"]:
    """Logarithm of the norm of each record's loss gradient, one a parameter tensor; float64.

    Args:
        module: in eval mode; layers that mix records in training do not there.
        samples: labelled.
    """
    found = []
    for slopes in _gradients(module, samples, [n for n, _ in module.named_parameters()], device):
        norms = [slope.flatten(1).double().norm(dim=1) for slope in slopes.values()]
        found.append(torch.stack(norms, dim=1).clamp(min=1e-30).log().cpu())
    return torch.cat(found)


def record_gradients(
    module: nn.Module,
    samples: Samples,
    names: Sequence[str],
    device: str = "cpu",
    recipe: Recipe | None = None,
) -> Iterator[Float[Tensor, "rows numbers"]]:
    """Loss gradients of single records as vectors, float64 on the CPU, ``ROWS`` records at a time.

    Args:
        module: in eval mode.
        samples: labelled.
        names: parameters whose gradients are meant, in the order in which they are put together.
        recipe: where it augments, gradients are means over the copies that it can make of a record.
    """
    for rows in torch.arange(len(samples)).split(ROWS):
        some, count = samples[rows], 0
        total = torch.zeros((), dtype=torch.float64)
        for copy in copies_of(recipe, some.x):
            (slopes,) = _gradients(module, replace(some, x=copy), names, device)
            flat = torch.cat([slopes[name].flatten(1) for name in names], dim=1)
            total, count = total + flat.double().cpu(), count + 1
        yield total / count


def unexplained(
    sent: Float[Tensor, "senders numbers"], known: Float[Tensor, "m numbers"], ridge: float
) -> Float[Tensor, "senders numbers"]:
    """What is left of gradients when their regression on those of known records is taken off.

    Args:
        known: one record's a row.
        ridge: penalty, in units of the mean squared norm of a known record's gradient.
    """
    sent = sent.to(known)
    gram = known @ known.T
    gram.diagonal().add_(ridge * gram.diagonal().mean().clamp(min=1e-30))
    factor = torch.linalg.cholesky(gram)
    return sent - (known.T @ torch.cholesky_solve(known @ sent.T, factor)).T


def _gradients(
    module: nn.Module, samples: Samples, names: Sequence[str], device: str
) -> Iterator[dict[str, Tensor]]:
    if samples.y is None:
        raise NotApplicable("a gradient of the loss needs labels, and these records have none")
    module = module.to(device).eval()
    state = {name: tensor.detach() for name, tensor in module.state_dict(keep_vars=True).items()}
    moving = {name: state.pop(name) for name in names}

    def loss(at: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = torch.func.functional_call(module, {**state, **at}, (x[None],))
        return F.cross_entropy(logits, y[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    for x, y in zip(samples.x.split(ROWS), samples.y.split(ROWS), strict=True):
        yield each(moving, x.to(device), y.to(device))
