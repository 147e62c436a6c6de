"""SliceNet: a crowd of devices trains a network of which each computes a slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import (
    Net,
    Recipe,
    Samples,
    Spec,
    Topology,
    batches,
    child_rng,
    counted,
    finite,
    load_name,
    spec_of,
    steps_per_epoch,
)
from privbench.data.population import Population
from privbench.errors import UsageError
from privbench.regimes.base import Regime, Trained, graph_of
from privbench.regimes.centralized import Centralized
from privbench.regimes.training import started, total_steps
from privbench.slicenet.crowd import Crowd, Uniform
from privbench.slicenet.engine import COORDINATOR, RELEASER, Simulated
from privbench.slicenet.graph import Graph, parameters_of
from privbench.slicenet.ledger import loads_of, traffic_of
from privbench.slicenet.problem import Problem, check_budgets
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.slicers.greedy import Greedy
from privbench.slicenet.tiles import (
    flows_of,
    owner_flops,
    owner_output,
    slices_of,
    tiles_of,
    vertices_of,
)
from privbench.wire.wire import Wire

ELEMENTWISE: Mapping[str, int] = MappingProxyType(
    {
        "torch.optim.SGD": 0, "torch.optim.Adam": 2, "torch.optim.AdamW": 2, "torch.optim.NAdam": 2,
        "torch.optim.RAdam": 2, "torch.optim.Adamax": 2, "torch.optim.Adadelta": 2,
        "torch.optim.Adagrad": 1, "torch.optim.RMSprop": 1,
    }
)  # fmt: skip
"""Optimisers that treat every number alone, so that a host can run its own, and the numbers that
each keeps for a parameter (momentum adds one to SGD and RMSprop)."""


@dataclass(frozen=True, kw_only=True)
class SliceNet(Regime):
    """Our reading of Chen, Jung, Du, Qian, Hou, Li, "Crowdlearning: Crowded Deep Learning with
    Data Privacy", IEEE SECON 2018, https://doi.org/10.1109/SAHCN.2018.8397100.

    Owners run the stem and the tail (last layer) on their own samples; the layers between are cut
    into blocks of channels, each hosted by one device. Activations and their gradients cross
    between devices, samples and labels do not. Only the abstract was available: how labels, sums
    of gradients and broadcasts are handled is ours.

    Args:
        crowd: the devices; each owns an equal random share of the records.
        slicer: who hosts what.
        tiling: cut layers along their ``output`` or ``input`` channels.
        granularity: most channels of a block.
        stem: layers that owners run on their own samples.

    Raises:
        NotApplicable: the network is no chain, or has too few layers.
        UsageError: a setting is out of range.
        BudgetError: no slicing fits the devices.
    """

    name: ClassVar[str] = "slicenet"

    crowd: Crowd = field(default_factory=Uniform)
    slicer: Slicer = field(default_factory=Greedy)
    tiling: str = "output"
    granularity: int = 8  # channels
    stem: int = 1  # layers

    def train(
        self, net: Net, population: Population, wire: Wire, rng: torch.Generator, device: str
    ) -> Trained:
        """See ``Regime.train``."""
        samples = population.train.to(device)
        recipe = self.recipe(net, len(samples))
        module = started(recipe, rng).net.module().to(samples.x).train()
        graph = graph_of(self.name, module, samples.x.shape[1:], self.stem)
        shares = population.share(len(self.crowd.members()), child_rng(rng, "shares"))
        problem = self.problem(graph, recipe, [len(share) for share in shares])
        topology = self._topology(graph, problem, recipe, sum(map(len, shares)), wire)
        optimizer = load_name(recipe.optimizer.target)(
            module.parameters(), **recipe.optimizer.kwargs
        )
        noise = child_rng(rng, "noise").initial_seed()
        engine = Simulated(module, graph, topology, wire, optimizer, recipe.loss, noise)
        visits = _run(engine, recipe, population, samples, shares, topology.steps, rng)
        body = sum(vertex.flops for vertex in problem.vertices)
        return Trained(
            net=finite(net.holding(module)),
            recipe=recipe,
            trainer=self.trainer,
            topology=topology,
            bytes_per_sample=sum(wire.bytes.values()) / visits,
            flops_per_sample=body + problem.owner_flops,
        )

    def recipe(self, net: Net, records: int) -> Recipe:
        """See ``Regime.recipe``.

        Raises:
            UsageError: the optimiser looks at more than one number at a time, or there is a learning
                defense.
        """
        if self.learning is not None:
            raise UsageError(
                f"regime=slicenet trains without a learning defense, got {type(self.learning).__name__}; "
                "leave regime.learning out, or choose regime=dpsgd"
            )
        if self.optimizer not in ELEMENTWISE:
            raise UsageError(
                f"regime.optimizer='{self.optimizer}' cannot be run slice by slice; expected one of "
                f"{', '.join(ELEMENTWISE)}"
            )
        return super().recipe(net, records)

    def _check(self) -> None:
        super()._check()
        parts = (("crowd", Crowd, "crowd=uniform"), ("slicer", Slicer, "slicer=greedy"))
        for name, kind, example in parts:
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise UsageError(
                    f"regime.{name}={part}; expected a {kind.__name__} of privbench: leave it out, or "
                    f"choose one by name, for example {example}"
                )
        if type(self.granularity) is not int or self.granularity < 1:
            raise UsageError(
                f"regime.granularity={self.granularity}; expected at least 1 channel a block"
            )

    def equivalent(self) -> Regime:
        """Centralized training with the same settings: one step of the crowd is one of SGD."""
        return Centralized(
            lr=self.lr,
            optimizer=self.optimizer,
            optimizer_args=self.optimizer_args,
            epochs=self.epochs,
            batch=self.batch,
        )

    def problem(self, graph: Graph, recipe: Recipe, shares: list[int]) -> Problem:
        """What the slicer is asked: this network, on this crowd, with so many records a device."""
        outside = parameters_of((*graph.placed("stem"), *graph.placed("tail")))
        weights = list(outside.values())
        records = sum(shares)
        tiles = tiles_of(graph, self.tiling, self.granularity)
        return Problem(
            vertices=vertices_of(graph, tiles),
            flows=flows_of(graph, tiles),
            devices=self.crowd.members(),
            shares=tuple(Fraction(share, records) for share in shares),
            batch=recipe.batch,
            own_rows=tuple(min(recipe.batch, share) for share in shares),
            element=weights[0].element_size(),
            state=_state(recipe.optimizer),
            owner_flops=owner_flops(graph),
            owner_parameters=sum(weight.numel() for weight in weights),
            owner_output=owner_output(graph),
        )

    def _topology(
        self, graph: Graph, problem: Problem, recipe: Recipe, records: int, wire: Wire
    ) -> Topology:
        slicing = self.slicer.slice(problem)
        check_budgets(problem, slicing)
        return Topology(
            regime=self.name,
            parties=(*problem.parties, COORDINATOR, RELEASER),
            owners=problem.parties,
            net=replace(recipe.net, weights=None),
            steps=total_steps(recipe, records),
            steps_per_epoch=steps_per_epoch(recipe, records),
            layers=graph.layers,
            slices=slices_of(tiles_of(graph, self.tiling, self.granularity), slicing),
            defenses=tuple(spec_of(defense) for defense in wire.defenses),
            loads=loads_of(problem, slicing),
            traffic=traffic_of(problem, slicing),
        )


def _run(
    engine: Simulated,
    recipe: Recipe,
    population: Population,
    samples: Samples,
    shares: tuple[Int64[Tensor, " share"], ...],
    steps: int,
    rng: torch.Generator,
) -> int:
    """All steps; how many records were visited."""
    owner_of = torch.zeros(len(samples), dtype=torch.int64)
    for number, share in enumerate(shares):
        owner_of[share] = number
    order = batches(recipe, len(samples), child_rng(rng, "batches"))
    visits = 0
    for step in counted(range(steps)):
        positions = next(order)
        population.note(step, positions)
        engine.step(step, samples[positions.to(samples.x.device)], owner_of[positions])
        visits += len(positions)
    return visits


def _state(optimizer: Spec) -> int:
    """Numbers that an optimiser keeps for each parameter."""
    arguments = optimizer.kwargs
    return (
        ELEMENTWISE[optimizer.target]
        + bool(arguments.get("momentum"))
        + bool(arguments.get("amsgrad"))
    )
