"""Many models of one recipe trained together: parameters stacked, matrix products batched.

A model depends on its own generator and records, not on how many are trained beside it: to the last
bit where layer widths keep every matrix on a 64-byte boundary (as 64-128-64-32-10 does), else to
rounding, because matrix products round differently off it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privbench.contract import Net, Recipe, Samples, finite, load_name
from privbench.errors import TrainingError, UsageError
from privbench.toolkit.chain import chain_of
from privbench.toolkit.together import ELEMENTWISE, Together

TRAINERS = ("privbench.regimes.training.train", "privbench.regimes.fedavg.federated_train")
"""The sequential trainers that this file computes alike."""

WIDTH = 32  # networks side by side: less overhead a step, and all state still fits the cache


@dataclass(frozen=True, eq=False)
class Stacked:
    """Trained models, side by side: each tensor of the state dict with a first axis of models."""

    tensors: Mapping[str, Float[Tensor, "models ..."]]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def of(self, model: int) -> dict[str, Tensor]:
        """The state dict of one of them."""
        return {name: tensor[model] for name, tensor in self.tensors.items()}


def stackable(recipe: Recipe, trainer: str | None, shape: Sequence[int]) -> bool:
    """Can models of this recipe be trained together?

    Args:
        trainer: import name of what trains them one after another.
        shape: of one sample.
    """
    federated = recipe.federation is not None
    return (
        trainer == TRAINERS[federated]
        and recipe.loss == "cross_entropy"
        and recipe.augmentation is None
        and recipe.decay == "constant"
        and recipe.clip is None
        and (recipe.learning is None or recipe.mechanism is not None)
        and load_name(recipe.optimizer.target) in ELEMENTWISE
        and chain_of(recipe.net.module(), shape) is not None
    )


def train_stacked(
    recipe: Recipe,
    samples: Samples,
    member: Bool[Tensor, "models n"],
    rngs: Sequence[torch.Generator],
    device: str = "cpu",
) -> Stacked:
    """Train one model for each row of ``member``, on the samples that the row marks.

    Args:
        recipe: one that is ``stackable``.
        samples: the pool, on the CPU, with labels.
        member: which samples each model is trained on.
        rngs: one generator a model; the same that the sequential trainer would be given.

    Raises:
        UsageError: the recipe cannot be stacked, or there is not one generator a model.
        TrainingError: a weight is NaN or infinite, or a model has no records.
    """
    trainer = TRAINERS[recipe.federation is not None]
    if len(rngs) != len(member) or not stackable(recipe, trainer, samples.x.shape[1:]):
        raise UsageError(
            f"train_stacked takes one generator a model ({len(member)} models, {len(rngs)} "
            "generators) and a recipe for which stackable(...) is true"
        )
    links = chain_of(recipe.net.module(), samples.x.shape[1:]) or ()
    sizes = member.sum(dim=1)
    clients = recipe.federation.clients if recipe.federation else 1
    if int(sizes.min()) < clients:
        raise TrainingError(
            f"a shadow model has {int(sizes.min())} records for {clients} learner(s); expected at "
            "least one each: give more candidates or fewer clients"
        )
    width, pool = max(1, WIDTH // clients), samples.to(device)
    trained: dict[int, dict[str, Tensor]] = {}
    for size in sizes.unique().tolist():
        # equal sizes keep step: the same number of batches an epoch, of the same lengths
        alike = (sizes == size).nonzero().flatten().tolist()
        for start in range(0, len(alike), width):
            chosen = alike[start : start + width]
            records = [member[i].nonzero().flatten() for i in chosen]
            group = Together(recipe, links, pool, records, [rngs[i] for i in chosen])
            trained |= dict(zip(chosen, group.trained(), strict=True))
    for state in trained.values():
        finite(Net(recipe.net.spec, state))
    names = [name for link in links for name in (link.weight, link.bias) if name]
    return Stacked({n: torch.stack([trained[i][n] for i in range(len(rngs))]) for n in names})
