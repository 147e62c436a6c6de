"""SliceNet: a crowd of devices trains a network of which each computes a slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from privbench.contract import (
    Net,
    Recipe,
    Spec,
    Topology,
    child_rng,
    finite,
    optimizer_for,
    steps_per_epoch,
)
from privbench.data.population import Population
from privbench.errors import UsageError
from privbench.regimes.base import Regime, Trained, defenses_of, graph_of
from privbench.regimes.centralized import Centralized
from privbench.regimes.curve import Curve
from privbench.regimes.steps import batches_and_owners, in_processes, in_turn
from privbench.regimes.sums import check_owners, check_sums
from privbench.regimes.training import started, total_steps
from privbench.slicenet.bills import bills_of, volumes_of
from privbench.slicenet.crowd import Crowd, Uniform
from privbench.slicenet.engine import Simulated
from privbench.slicenet.engines import Distributed, Engine, InOneProcess, Job
from privbench.slicenet.faults import Faults
from privbench.slicenet.faulty import Faulty
from privbench.slicenet.graph import Graph, parameters_of
from privbench.slicenet.groups import bill_of_groups, grouped, loads_of_groups, traffic_of_groups
from privbench.slicenet.ops import check_rows_apart
from privbench.slicenet.parcels import COORDINATOR, RELEASER
from privbench.slicenet.places import check_labels, check_range
from privbench.slicenet.problem import Problem
from privbench.slicenet.replicas import Replicated
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
from privbench.slicenet.watch import Outage, outage_of
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
    between devices, samples do not, and labels only if asked for. Only the abstract was available:
    how labels, sums of gradients and broadcasts are handled is ours.

    Args:
        crowd: the devices, and how they share the records.
        slicer: who hosts what.
        tiling: cut layers along their ``output`` or ``input`` channels, or both (``grid``).
        granularity: most channels of a block.
        stem: layers that owners run on their own samples.
        labels: ``tail``: owners run the last layer too (U-shaped: P. Vepakomma et al., "Split learning for
            health", 2018, https://arxiv.org/abs/1812.00564); ``logits``: the crowd hosts it, owners get
            the logits and return their gradient; ``shared``: owners send labels to one host, which
            gathers the logits and computes the loss. In no mode are labels hidden: the gradient of
            logits tells each label outright, that of the last hidden activation nearly so.
        replicas: copies of the network, each hosted by devices of its own and trained on their rows
            (see ``Replicated``).
        average_every: steps after which replicas average their slices; not read with one alone.
        micro_batch: rows that are computed at a time, their gradients added up before anybody learns: a
            device needs memory for so many; None = all rows of a step at once.
        aggregation: ``secure``: the coordinator learns the sums of a step's stem and tail gradients, no
            owner's (the ideal functionality of K. Bonawitz et al., "Practical Secure Aggregation for
            Privacy-Preserving Machine Learning", CCS 2017, https://doi.org/10.1145/3133956.3133982;
            keys and masks cost bytes that are not counted); ``plain``: each owner's.
        min_owners: owners that a step has at least under ``secure``.
        engine: all devices computed in one process, or in processes of their own.
        faults: devices that leave or are slow, messages that are lost; none unless asked for.
        baselines: other slicers, whose volume on the same problem is told beside that of ``slicer``.

    Raises:
        NotApplicable: the network has too few layers, or cannot be cut (see ``trace``).
        UsageError: a setting, or a label, is out of range, or a step would have too few owners.
        BudgetError: no slicing fits the devices.
    """

    name: ClassVar[str] = "slicenet"

    crowd: Crowd = field(default_factory=Uniform)
    slicer: Slicer = field(default_factory=Greedy)
    tiling: str = "output"
    granularity: int = 8  # channels
    stem: int = 1  # layers
    labels: str = "tail"
    replicas: int = 1
    average_every: int = 1  # steps
    micro_batch: int | None = None  # rows
    aggregation: str = "plain"
    min_owners: int = 4  # in a step; a sum of fewer hides little
    engine: Engine = field(default_factory=InOneProcess)
    faults: Faults = field(default_factory=Faults)
    baselines: tuple[Slicer, ...] = ()

    def train(
        self, net: Net, population: Population, wire: Wire, rng: torch.Generator, device: str
    ) -> Trained:
        """See ``Regime.train``."""
        samples = population.train.to(device)
        recipe = self.recipe(net, len(samples))
        module = started(recipe, rng).net.module().to(samples.x).train()
        if self.replicas > 1:
            check_rows_apart(module, f"regime.replicas={self.replicas}", "replica")
        if self.micro_batch is not None and self.micro_batch < recipe.batch:
            check_rows_apart(module, f"regime.micro_batch={self.micro_batch}", "micro-batch")
        graph = graph_of(self.name, module, samples.x.shape[1:], self.stem, self.labels)
        check_range(samples.y, graph)
        devices = self.crowd.members()
        shares = population.share(
            len(devices),
            child_rng(rng, "shares"),
            [device.owns for device in devices],
            self.crowd.concentration,
        )
        problem = self.problem(graph, recipe, [len(share) for share in shares])
        topology = self._topology(graph, problem, recipe, shares, samples.x.shape[1:], wire)
        outage = None if self.faults.quiet else outage_of(self.faults, graph, problem, topology)
        if outage is not None:
            topology = replace(topology, handovers=outage.course.handovers)
        if topology.min_owners is not None:
            check_owners(recipe, samples, shares, topology.steps, rng, topology.min_owners)
        noise = child_rng(rng, "noise").initial_seed()
        shape = samples.x.shape[1:]
        curve, engine = Curve(), None
        if isinstance(self.engine, Distributed):
            order, owner_of = batches_and_owners(recipe, samples, shares, topology.steps, rng)
            parts = (module, graph, topology, wire, recipe, noise, self.stem, samples)
            visits = in_processes(self.engine, Job(*parts, owner_of, order), population, curve)
        else:
            engine = self._engine(module, graph, topology, wire, recipe, noise, shape, outage)
            visits = in_turn(
                engine, recipe, population, samples, shares, topology.steps, rng, curve
            )
        if isinstance(engine, Faulty):
            topology = replace(topology, losses=engine.losses())
        body = sum(vertex.flops for vertex in problem.vertices)
        return Trained(
            net=finite(net.holding(module)),
            recipe=recipe,
            trainer=self.trainer,
            topology=topology,
            bytes_per_sample=sum(wire.bytes.values()) / max(visits, 1),
            flops_per_sample=body + problem.owner_flops,
            losses=curve.points(),
            passes=visits / len(samples),
        )

    def _engine(
        self,
        module: nn.Module,
        graph: Graph,
        topology: Topology,
        wire: Wire,
        recipe: Recipe,
        noise: int,
        shape: Sequence[int],
        outage: Outage | None,
    ) -> Simulated | Replicated:
        """What trains ``module``."""

        def optimizer(tensors: Iterable[Tensor]) -> Optimizer:
            return optimizer_for(recipe, tensors, topology.steps)

        if self.replicas == 1:
            made = optimizer(module.parameters())
            if outage is not None:
                return Faulty(outage, module, graph, topology, wire, made, recipe.loss, noise)
            parts = (module, graph, topology, wire, made, recipe.loss, noise)
            return Simulated(*parts, clip=recipe.clip, micro_batch=self.micro_batch)
        built = [(module, graph)]
        for _ in range(1, self.replicas):
            copy = deepcopy(module)
            built.append((copy, graph_of(self.name, copy, shape, self.stem, self.labels)))
        return Replicated(built, topology, wire, optimizer, recipe.loss, noise, self.average_every)

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
        parts = (
            ("crowd", Crowd, "crowd=uniform"),
            ("slicer", Slicer, "slicer=greedy"),
            ("faults", Faults, "faults=none"),
            ("engine", Engine, "engine=simulated"),
        )
        for name, kind, example in parts:
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise UsageError(
                    f"regime.{name}={part}; expected privbench's {kind.__name__}: leave it out, or choose "
                    f"one by name, for example {example}"
                )
        if type(self.granularity) is not int or self.granularity < 1:
            raise UsageError(
                f"regime.granularity={self.granularity}; expected at least 1 channel a block"
            )
        check_labels(self.labels)
        check_sums(
            self.aggregation,
            self.min_owners,
            distributed=isinstance(self.engine, Distributed),
            faults=not self.faults.quiet,
            replicas=self.replicas,
        )
        for name, unit in (("replicas", "replica"), ("average_every", "step")):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UsageError(
                    f"regime.{name}={value}; expected a whole number of at least 1 {unit}: leave it "
                    f"out, or type regime.{name}=1"
                )
        if isinstance(self.engine, Distributed) and not self.faults.quiet:
            raise UsageError(
                "engine=distributed does without faults: its processes do not fail by plan; type "
                "engine=simulated, or faults=none"
            )
        if self.micro_batch is not None:
            _check_micro_batch(self)
        if self.clip is not None and (self.replicas > 1 or not self.faults.quiet):
            which = "several replicas" if self.replicas > 1 else "faults"
            raise UsageError(
                f"regime.clip={self.clip} with {which}: nobody knows the norm of the whole step's "
                "gradient there; leave regime.clip out, or choose regime.replicas=1 and faults=none"
            )
        if self.replicas > 1 and not self.faults.quiet:
            raise UsageError(
                f"regime.replicas={self.replicas} with faults: devices of several replicas cannot fail "
                "yet; leave regime.replicas out, or choose faults=none"
            )

    def departs(self, altered: bool) -> bool:
        """Also where devices fail, or replicas part between averages or remember other gradients."""
        plain = self.optimizer == "torch.optim.SGD" and not self.optimizer_args.get("momentum")
        parting = self.replicas > 1 and not (self.average_every == 1 and plain)
        return altered or parting or not self.faults.quiet

    def rehearsed(self, recipe: Recipe, records: int) -> SliceNet:
        """See ``Regime.rehearsed``; without what is only watched for or compared."""
        faults = self.faults.until(total_steps(recipe, records))
        return replace(self, faults=faults, min_owners=2, baselines=())

    def equivalent(self) -> Regime | None:
        """Centralized training with the same settings: one step of the crowd is one of SGD.

        None where training departs from it, and where owners' gradients are summed under masks.
        """
        if self.departs(altered=False) or self.aggregation == "secure":
            return None
        return Centralized.like(self)

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
            scorer=len(tiles) - 1 if self.labels == "shared" else None,
            micro_batch=self.micro_batch,
        )

    def _topology(
        self,
        graph: Graph,
        problem: Problem,
        recipe: Recipe,
        shares: Sequence[Int64[Tensor, " _share"]],
        shape: Sequence[int],
        wire: Wire,
    ) -> Topology:
        sizes = [len(share) for share in shares]
        records, steps = sum(sizes), total_steps(recipe, sum(sizes))
        groups = grouped(problem, sizes, self.slicer, self.replicas)
        tiles = tiles_of(graph, self.tiling, self.granularity)
        bills = bills_of(graph, problem, groups[0].slicing, sizes, shape=shape, steps=steps)
        if self.replicas > 1:
            tail = 3 * sum(stage.flops for stage in graph.placed("tail"))
            every = self.average_every
            bills = (bill_of_groups(problem, groups, every=every, tail_flops=tail), *bills[1:])
        return Topology(
            regime=self.name,
            parties=(*problem.parties, COORDINATOR, RELEASER),
            owners=tuple(p for p, size in zip(problem.parties, sizes, strict=True) if size),
            net=replace(recipe.net, weights=None),
            steps=steps,
            steps_per_epoch=steps_per_epoch(recipe, records),
            layers=graph.layers,
            slices=tuple(piece for group in groups for piece in slices_of(tiles, group.slicing)),
            defenses=defenses_of(wire),
            loads=loads_of_groups(groups),
            traffic=traffic_of_groups(groups),
            bills=bills,
            volumes=volumes_of(problem, self.slicer, groups[0].slicing, self.baselines)
            if self.replicas == 1
            else (),
            replicas=tuple(group.parties for group in groups) if self.replicas > 1 else (),
            labels=self.labels,
            min_owners=self.min_owners if self.aggregation == "secure" else None,
        )


def _check_micro_batch(regime: SliceNet) -> None:
    value = regime.micro_batch
    if type(value) is not int or value < 1:
        raise UsageError(
            f"regime.micro_batch={value}; expected a whole number of at least 1 row, or null for all "
            "rows of a step at once"
        )
    elsewhere = (
        ("engine=distributed", isinstance(regime.engine, Distributed), "engine=simulated"),
        (f"regime.replicas={regime.replicas}", regime.replicas > 1, "regime.replicas=1"),
        ("faults", not regime.faults.quiet, "faults=none"),
    )
    for found, there, instead in elsewhere:
        if there:
            raise UsageError(
                f"regime.micro_batch={value} with {found}: its steps are computed in one piece; leave "
                f"regime.micro_batch out, or type {instead}"
            )


def _state(optimizer: Spec) -> int:
    """Numbers that an optimiser keeps for each parameter."""
    arguments = optimizer.kwargs
    return (
        ELEMENTWISE[optimizer.target]
        + bool(arguments.get("momentum"))
        + bool(arguments.get("amsgrad"))
    )
