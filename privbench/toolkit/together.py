"""The training loop of stacked models: the same steps as the sequential trainers, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, optim

from privbench.contract import (
    Recipe,
    Samples,
    batches,
    child_rng,
    counted,
    load_name,
    steps_per_epoch,
)
from privbench.errors import TrainingError
from privbench.toolkit.chain import Link
from privbench.toolkit.copies import Copies

_FUSED = (optim.SGD, optim.Adam, optim.AdamW)
ELEMENTWISE = (
    *_FUSED, optim.Adagrad, optim.RMSprop, optim.Adamax, optim.NAdam, optim.RAdam, optim.Adadelta,
)  # fmt: skip
"""Optimisers that treat every parameter alone, so that copies in one buffer do not mix."""

Order = Iterator[Int64[Tensor, " batch"]]


class Together:
    """Models with equal numbers of records, trained in step with each other.

    Args:
        recipe: a stackable one.
        links: its network's chain.
        pool: all samples, on the device where training happens.
        records: which of them each model is trained on; equal lengths.
        rngs: one generator a model.
    """

    def __init__(
        self,
        recipe: Recipe,
        links: Sequence[Link],
        pool: Samples,
        records: Sequence[Int64[Tensor, " n"]],
        rngs: Sequence[torch.Generator],
    ) -> None:
        if pool.y is None:
            raise TrainingError("shadow models need labelled candidates; these have no labels")
        self.recipe, self.links, self.records, self.rngs = recipe, links, records, rngs
        self.x = pool.x.flatten(1).float()
        classes = int(pool.y.max()) + 1
        self.starts = [
            recipe.net.weights or recipe.net.initialised(child_rng(rng, "init")).weights or {}
            for rng in rngs
        ]
        outputs = len(self.starts[0][links[-1].weight])
        self.y = torch.nn.functional.one_hot(pool.y, max(classes, outputs)).float()

    def trained(self) -> list[dict[str, Tensor]]:
        """The state dict of each model after training."""
        return self._plain() if self.recipe.federation is None else self._federated()

    def _plain(self) -> list[dict[str, Tensor]]:
        recipe, size = self.recipe, len(self.records[0])
        copies = Copies(self.links, self.starts, self.x.device)
        optimizer = _optimizer(recipe, copies)
        orders = [batches(recipe, size, child_rng(rng, "batches")) for rng in self.rngs]
        noises = [child_rng(rng, "noise") for rng in self.rngs]
        epoch = steps_per_epoch(recipe, size)
        total = recipe.epochs * epoch
        total = total if recipe.steps is None else min(total, recipe.steps)
        for done in counted(range(0, total, epoch)):
            steps = min(epoch, total - done)
            self._run(copies, optimizer, orders, self.records, steps, noises)
        return [copies.state(place) for place in range(len(self.rngs))]

    def _run(
        self,
        copies: Copies,
        optimizer: optim.Optimizer,
        orders: Sequence[Order],
        records: Sequence[Int64[Tensor, " _n"]],
        steps: int,
        noises: Sequence[torch.Generator],
    ) -> None:
        """Take some steps; ``orders``, ``records`` and ``noises`` have one entry a copy."""
        drawn = [[next(order) for _ in range(steps)] for order in orders]
        lengths = torch.tensor([[len(batch) for batch in mine] for mine in drawn])
        longest = self._longest(int(lengths.max()))
        filled = torch.arange(longest) < lengths[..., None]
        index = torch.zeros(len(drawn), steps, longest, dtype=torch.int64)
        index[filled] = torch.cat(
            [mine[torch.cat(batch)] for mine, batch in zip(records, drawn, strict=True)]
        )
        index, filled = index.to(self.x.device), filled.to(self.x.device)
        even = (lengths == lengths[:1]).all(dim=0).tolist()
        for step in range(steps):
            if even[step] and self.recipe.sampling == "shuffle":
                size = int(lengths[0, step])
                rows, weight = index[:, step, :size], None
            else:
                size, rows = longest, index[:, step]
                weight = filled[:, step, :, None].float()
                if self.recipe.mechanism is None:  # an empty batch has no mean: weight 0
                    weight = weight / lengths[:, step, None, None].clamp(min=1).to(weight)
            self._step(copies, rows, weight, noises)
            optimizer.step()

    def _longest(self, found: int) -> int:
        """Rows to which batches are padded: fixed where it can be, so that bits do not depend on
        the models that happen to be trained beside."""
        if self.recipe.sampling != "poisson":
            return found
        usual = self.recipe.batch + 6 * self.recipe.batch**0.5  # six standard deviations
        return max(found, min(int(usual), len(self.records[0])))

    def _step(
        self,
        copies: Copies,
        rows: Int64[Tensor, "copies batch"],
        weight: Float[Tensor, "copies batch 1"] | None,
        noises: Sequence[torch.Generator],
    ) -> None:
        """Gradients of one step of every copy."""
        shape, mechanism = tuple(rows.shape), self.recipe.mechanism
        flat = rows.flatten()
        values, before = copies.forward(self.x.index_select(0, flat).view(*shape, -1))
        wanted = self.y.index_select(0, flat).view(*shape, -1)
        delta = torch.softmax(values[-1], dim=-1).sub_(wanted)
        if mechanism is None:
            if weight is None:
                delta.mul_(1.0 / shape[1])
            copies.backward(values, before, delta, weight)
            return
        copies.backward(values, before, delta, weight, mechanism.clip)
        copies.perturb(mechanism.noise * mechanism.clip, self.recipe.batch, noises)

    def _federated(self) -> list[dict[str, Tensor]]:
        """Rounds of local steps from the global model, then the average by numbers of records."""
        federation = self.recipe.federation
        if federation is None:
            return []
        clients = range(federation.clients)
        shares, orders, noises = [], [], []
        for mine, rng in zip(self.records, self.rngs, strict=True):
            dealt = torch.randperm(len(mine), generator=child_rng(rng, "shares"))
            for client, share in zip(clients, dealt.tensor_split(len(clients)), strict=True):
                shares.append(mine[share])
                order = child_rng(rng, "client", client)
                orders.append(batches(self.recipe, len(share), order))
                noises.append(child_rng(rng, "noise", client))
        states = [start for start in self.starts for _ in clients]
        copies = Copies(self.links, states, self.x.device)
        sizes = torch.tensor([float(len(share)) for share in shares], device=self.x.device)
        for _ in counted(range(federation.rounds)):
            optimizer = _optimizer(self.recipe, copies)
            self._run(copies, optimizer, orders, shares, federation.local_steps, noises)
            copies.average(sizes.view(len(self.rngs), len(clients)))
        return [copies.state(place * len(clients)) for place in range(len(self.rngs))]


def _optimizer(recipe: Recipe, copies: Copies) -> optim.Optimizer:
    kind = load_name(recipe.optimizer.target)
    settings = dict(recipe.optimizer.kwargs)
    if kind in _FUSED:  # one pass over the buffer instead of one for each operation
        settings = {k: v for k, v in settings.items() if k != "foreach"} | {"fused": True}
    optimizer: optim.Optimizer = kind([copies.flat], **settings)
    return optimizer
