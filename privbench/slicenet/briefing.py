"""What the processes of a crowd are told before they begin: what all know, and what one alone holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from privbench.contract import Party, Recipe, Topology, optimizer_for
from privbench.errors import UsageError
from privbench.slicenet.device import Holdings
from privbench.slicenet.graph import Graph
from privbench.slicenet.schedule import Part
from privbench.slicenet.trace import trace

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Public:
    """What every process is told.

    Args:
        topology: who takes part, and who hosts what.
        recipe: how the network is trained; without weights.
        shape: of a sample.
        stem: layers that owners run.
        noise_seed: of random layers.
        dtype: of all arithmetic.
        constants: tensors that are neither learned nor sent: counters, and frozen ones of stem and
            tail.
    """

    topology: Topology
    recipe: Recipe
    shape: tuple[int, ...]
    stem: int
    noise_seed: int
    dtype: torch.dtype
    constants: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        topology: Topology,
        recipe: Recipe,
        graph: Graph,
        noise_seed: int,
        sample: Tensor,
        stem: int,
    ) -> Public:
        """From a network with its initial weights.

        Args:
            sample: any one, without the row axis.
            stem: layers that owners run.

        Raises:
            UsageError: stem and tail share tensors, or share some within themselves.
        """
        _check_apart(graph)
        constants = {
            name: tensor.detach().clone()
            for stage in graph.stages
            for name, tensor in stage.tensors.items()
            if not tensor.is_floating_point()
            or not (stage.layer.place == "body" or tensor.requires_grad)
        }
        bare = replace(recipe, net=topology.net)
        return cls(topology, bare, tuple(sample.shape), stem, noise_seed, sample.dtype, constants)

    def optimizer(self, tensors: Iterable[Tensor]) -> Optimizer:
        """A party's own optimiser."""
        return optimizer_for(self.recipe, tensors, self.topology.steps)

    def graph(self) -> Graph:
        """Of a network with the values of its constructor."""
        module: nn.Module = self.topology.net.module().to(self.dtype).train()
        return trace(module, self.shape, self.stem, self.topology.labels)


@dataclass(frozen=True, eq=False)
class Private:
    """What one process is told beside that.

    Args:
        parties: that live in it.
        holdings: records of its owners.
        state: initial weights, where the releaser lives; None elsewhere.
    """

    parties: tuple[Party, ...]
    holdings: Mapping[Party, Holdings]
    state: Mapping[str, Tensor] | None = None


class Watcher(Protocol):
    """Looks at the weights that parties of this process have in a step."""

    def wants(self, step: int) -> bool:
        """Does it look?"""

    def hold(self, step: int, parts: Sequence[tuple[Part, Tensor]]) -> None:
        """Parts that they have, before they learn."""


def _check_apart(graph: Graph) -> None:
    """Refuse what owners would learn as two tensors while it is one."""
    names: dict[int, str] = {}
    for stage in (*graph.placed("stem"), *graph.placed("tail")):
        for name, tensor in stage.tensors.items():
            if id(tensor) in names:
                raise UsageError(
                    f"'{names[id(tensor)]}' and '{name}' of stem and tail are one tensor; expected one "
                    "name for each tensor that owners run: type engine=simulated, or untie them"
                )
            names[id(tensor)] = name
