"""What a model shows of labelled records, as features of an attack model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import Samples
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
    if samples.y is None:
        raise NotApplicable("a gradient of the loss needs labels, and these records have none")
    module = module.to(device).eval()
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def loss(at: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = torch.func.functional_call(module, {**at, **buffers}, (x[None],))
        return F.cross_entropy(logits, y[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    found = []
    for x, y in zip(samples.x.split(ROWS), samples.y.split(ROWS), strict=True):
        slopes = each(parameters, x.to(device), y.to(device))
        norms = [slope.flatten(1).double().norm(dim=1) for slope in slopes.values()]
        found.append(torch.stack(norms, dim=1).clamp(min=1e-30).log().cpu())
    return torch.cat(found)
