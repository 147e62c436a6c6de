"""Features of an attack model: gradients of single records, and answers sorted."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from privbench.contract import Samples
from privbench.models.mlp import Mlp
from privbench.toolkit.features import gradient_norms, of_answers


def test_norms_are_those_of_one_record_at_a_time() -> None:
    rng = torch.Generator().manual_seed(0)
    samples = Samples(torch.rand(7, 6, generator=rng), torch.arange(7) % 3)
    module = Mlp(widths=[6, 5, 3])
    found = gradient_norms(module, samples)
    for row in range(7):
        module.zero_grad()
        F.cross_entropy(module(samples.x[row : row + 1]), samples.y[row : row + 1]).backward()
        slow = torch.stack([p.grad.double().norm() for p in module.parameters()])
        torch.testing.assert_close(found[row].exp(), slow, atol=1e-6, rtol=1e-4)


def test_answers_are_sorted_and_finite() -> None:
    logits = torch.tensor([[9.0, -2.0, 1.0], [1e6, 0.0, -1e6]])
    found = of_answers(logits, Samples(torch.zeros(2, 1), torch.tensor([0, 2])))
    assert bool(found.isfinite().all())
    assert bool((found[:, :3].diff(dim=1) <= 0).all())
    assert found[:, -1].tolist() == [1.0, 0.0]
