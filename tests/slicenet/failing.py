"""Plain training of one network by hand, with slices set back to what a plan by hand says."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from crowds import start

from privbench.contract import batches, child_rng, load_name
from privbench.regimes.training import total_steps


def cut(piece, name, tensor):
    """Places of a slice in a tensor of its layer, spelled out."""
    mask = torch.zeros_like(tensor, dtype=torch.bool)
    if name.endswith("bias"):
        if piece.reduces:
            mask[list(piece.units)] = True
        return mask
    columns = range(tensor.shape[1]) if piece.columns is None else piece.columns
    for unit in piece.units:
        mask[unit, list(columns)] = True
    return mask


class Plain:
    """One network and its optimiser.

    Args:
        told: a crowd that was trained; its batches, shares and initial weights are used.
        away: devices that are away, by step.
        skipped: steps that train nothing.
    """

    def __init__(self, told, away=None, skipped=()):
        self.told, self.away, self.skipped = told, away or {}, set(skipped)
        recipe = told.regime.recipe(told.net, len(told.population.train))
        self.recipe = recipe
        self.module = told.net.module().to(told.population.train.x.dtype)
        self.module.load_state_dict(start(told))
        self.initial = self.copy()
        self.optimizer = load_name(recipe.optimizer.target)(
            self.module.parameters(), **recipe.optimizer.kwargs
        )

    def copy(self):
        """All weights."""
        return {name: t.detach().clone() for name, t in self.module.named_parameters()}

    def states(self):
        """All numbers of the optimiser, by parameter."""
        return {
            name: {
                key: state.clone()
                for key, state in self.optimizer.state.get(t, {}).items()
                if state.ndim
            }
            for name, t in self.module.named_parameters()
        }

    def set_back(self, home, weights, states):
        """A home's slices become what they were."""
        tensors = dict(self.module.named_parameters())
        for piece in self.told.trained.topology.slices:
            if piece.party != home:
                continue
            for part in ("weight", "bias"):
                name = f"{piece.layer}.{part}"
                mask = cut(piece, name, tensors[name])
                with torch.no_grad():
                    tensors[name][mask] = weights[name][mask]
                    for key, state in self.optimizer.state.get(tensors[name], {}).items():
                        if state.ndim:
                            held = states.get(name, {}).get(key)
                            state[mask] = 0.0 if held is None else held[mask]

    def train(self, before):
        """All steps; ``before(step)`` is called ahead of each."""
        data, owner = self.told.population.train, {}
        for number, share in enumerate(self.told.population.shares):
            owner.update(dict.fromkeys(share.tolist(), number))
        order = batches(self.recipe, len(data), child_rng(self.told.rng, "batches"))
        self.kept = {}
        steps, rate = total_steps(self.recipe, len(data)), self.told.regime.lr
        for step in range(steps):
            before(step)
            if self.told.regime.decay == "linear":
                self.optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            positions = next(order).tolist()
            there = [p for p in positions if owner[p] not in self.away.get(step, ())]
            self.kept[step] = [] if step in self.skipped else there
            if step not in self.skipped and there:
                batch = data[torch.tensor(there)]
                F.cross_entropy(self.module(batch.x), batch.y).backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
        return self
