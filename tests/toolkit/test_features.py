"""Features of an attack model: gradients of single records, and answers sorted."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from privbench.contract import Net, Recipe, Samples, Spec, spec_of
from privbench.data.augmentations import Mirrored
from privbench.models.mlp import Mlp
from privbench.toolkit.features import gradient_norms, of_answers, record_gradients


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


def test_the_gradient_of_an_augmented_record_is_the_mean_over_its_copies() -> None:
    rng = torch.Generator().manual_seed(0)
    samples = Samples(torch.rand(5, 1, 2, 3, generator=rng), torch.arange(5) % 3)
    module = Mlp(widths=[6, 4, 3])
    spec = Net(Spec("privbench.models.mlp.Mlp", {"widths": [6, 4, 3]}))
    recipe = Recipe(spec, Spec("torch.optim.SGD"), 1, 1, augmentation=spec_of(Mirrored()))
    names = [name for name, _ in module.named_parameters()]
    flipped = replace(samples, x=samples.x.flip(-1))
    (mean,) = record_gradients(module, samples, names, recipe=recipe)
    both = [next(record_gradients(module, each, names)) for each in (samples, flipped)]
    torch.testing.assert_close(mean, (both[0] + both[1]) / 2)
    for row in range(5):
        module.zero_grad()
        F.cross_entropy(module(samples.x[row : row + 1]), samples.y[row : row + 1]).backward()
        slow = torch.cat([p.grad.flatten() for p in module.parameters()]).double()
        torch.testing.assert_close(both[0][row], slow, atol=1e-6, rtol=1e-4)


def test_answers_are_sorted_and_finite() -> None:
    logits = torch.tensor([[9.0, -2.0, 1.0], [1e6, 0.0, -1e6]])
    found = of_answers(logits, Samples(torch.zeros(2, 1), torch.tensor([0, 2])))
    assert bool(found.isfinite().all())
    assert bool((found[:, :3].diff(dim=1) <= 0).all())
    assert found[:, -1].tolist() == [1.0, 0.0]
