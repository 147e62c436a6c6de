"""From any network to its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from privbench.contract import Layer, traced
from privbench.errors import UsageError
from privbench.slicenet.graph import Graph, Operand, Stage, Strand
from privbench.slicenet.ops import (
    Call,
    Piece,
    call_of,
    counts_rows,
    is_shape,
    region_of,
    works_in_place,
)
from privbench.slicenet.places import (
    Drawn,
    check_batch_norm,
    check_labels,
    check_places,
    loss_stage,
    places_of,
)
from privbench.slicenet.regions import Facts, Region, facts_of, regions_of


def trace(module: nn.Module, shape: Sequence[int], stem: int = 1, labels: str = "tail") -> Graph:
    """The stages that a network consists of.

    Linear layers and convolutions are stages, with the per-channel operations behind them that
    nothing else needs; so are element-wise joins, and per-channel operations on a value that is
    needed elsewhere too. What channels cannot be cut through is one stage of its own: the smallest
    module around it (an attention block). Concatenation and flatten are no stages: the next one
    picks its channels from what travels, which has the shape ``(n, channels, ...)`` of its maker.

    Args:
        module: with initialised weights, on any device; it is not changed.
        shape: of one sample.
        stem: layers, from the first, that owners run on their own samples.
        labels: one of ``LABELS``; but for ``tail`` the last layer is of the body, and a stage without
            tensors behind it gives on the answer to where the loss is computed.

    Raises:
        UsageError: it cannot be traced, works in place on what is needed later, has no layer between
            stem and tail, needs samples behind the stem, or has batch norm in stem or tail; ``stem`` is
            not at least 1; or ``labels`` is unknown.
    """
    if stem < 1:
        raise UsageError(f"stem={stem}; expected at least 1: samples must not leave their owners")
    check_labels(labels)
    recorded = traced(module)
    recorded.graph.eliminate_dead_code()
    weight = next(module.parameters(), torch.zeros(()))
    sample = torch.zeros(1, *shape, device=weight.device, dtype=weight.dtype)
    facts = _facts(recorded, sample)
    draft = _Draft(recorded, facts, module)
    regions = regions_of(recorded, facts)
    trained = [number for number, region in enumerate(regions) if draft.holds(region)]
    for number, region in enumerate(regions):
        last = labels == "tail" and bool(trained) and number > trained[-1]
        if not (last and draft.behind(region)):
            draft.add(region)
    graph = draft.graph(stem, labels)
    _check_same(module, graph, sample)
    return graph


def _facts(recorded: fx.GraphModule, sample: Tensor) -> dict[fx.Node, Facts]:
    """Facts by node. The trial runs in evaluation mode: a batch norm must not learn from zeros."""
    training = [module for module in recorded.modules() if module.training]
    recorded.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            return facts_of(recorded, sample)
    finally:
        for module in training:
            module.training = True


@dataclass
class _Open:
    """A stage that is being put together."""

    name: str
    sort: str
    operands: tuple[Operand, ...]
    core: Call
    module: nn.Module | None
    flops: float
    map_shape: tuple[int, ...]
    last: fx.Node
    shape: tuple[int, ...]
    tensors: list[str]
    closing: Piece = field(default_factory=Piece)


class _Draft:
    """Stages in the making; ``views`` says what each node's value is made of."""

    def __init__(
        self, recorded: fx.GraphModule, facts: dict[fx.Node, Facts], module: nn.Module
    ) -> None:
        self._recorded, self._facts, self._module = recorded, facts, module
        self._state = module.state_dict(keep_vars=True)
        self._stages: dict[str, _Open] = {}
        self._views: dict[fx.Node, Operand] = {}
        inputs = [node for node in recorded.graph.nodes if node.op == "placeholder"]
        shape = facts[inputs[0]].shape
        if shape is None:
            raise UsageError("samples are expected as floating-point tensors (n, *shape)")
        self._views[inputs[0]] = Operand((Strand("", shape[0]),))

    def add(self, region: Region) -> None:
        """Take in the next region."""
        node = region.result
        if region.sort == "layer":
            self._stage(region, self._recorded.get_submodule(str(node.target)))
        elif region.sort in ("whole", "join"):
            self._stage(region)
        elif region.sort == "cat":
            views = [self._views[each] for each in region.fed]
            if all(not view.after.calls for view in views):
                self._views[node] = Operand(tuple(s for view in views for s in view.strands))
            else:
                self._stage(replace(region, sort="whole"))
        else:
            self._unary(region)

    def holds(self, region: Region) -> bool:
        """Does it have tensors of its own?"""
        return bool(self._tensors(region.nodes))

    def behind(self, region: Region) -> bool:
        """Take an operation on the last layer's value (a softmax) as part of that layer, if it is one."""
        if len(region.fed) != 1:
            return False
        view = self._views[region.fed[0]]
        stage = self._stages.get(view.strands[0].source)
        if stage is None or stage.last is not region.fed[0] or len(stage.last.users) > 1:
            return False
        whole = self._whole(region) if region.sort == "whole" else self._call(region.result)
        in_place = any(works_in_place(self._recorded, node) for node in region.nodes)
        stage.closing = stage.closing.then(whole, in_place)
        stage.last = region.result
        stage.shape = cast(tuple[int, ...], self._facts[region.result].shape)
        self._views[region.result] = Operand((Strand(stage.name, stage.shape[0]),))
        return True

    def _unary(self, region: Region) -> None:
        """An operation on one value: it goes with its maker, with its users, or stands alone."""
        node, (before,) = region.result, region.fed
        view = self._views[before]
        call = self._call(node)
        (strand, *others) = view.strands
        stage = self._stages.get(strand.source)
        shape = cast(tuple[int, ...], self._facts[node].shape)
        in_place = works_in_place(self._recorded, node)
        if isinstance(call.module, nn.Identity):
            self._views[node] = view
            if stage is not None and stage.last is before and self._goes_along(before, node):
                stage.last = node
        elif stage is not None and stage.last is before and self._goes_along(before, node):
            stage.closing = stage.closing.then(call, in_place)
            stage.last, stage.shape = node, shape
            stage.tensors += self._tensors((node,))
            self._views[node] = Operand((Strand(stage.name, stage.shape[0]),))
        elif _reshapes(self._recorded, node) and self._facts[before].shape != shape:
            self._flatten(node, view, call, shape)
        elif strand.source == "" and not others and not self.holds(region):
            self._views[node] = replace(view, after=view.after.then(call, in_place))
        elif region.sort == "elementwise" and any(s.piece.calls for s in view.strands):
            self._views[node] = replace(view, after=view.after.then(call, in_place))
        else:
            self._alone(region, Piece((call,), in_place))

    def _flatten(self, node: fx.Node, view: Operand, call: Call, shape: tuple[int, ...]) -> None:
        """Channels become several numbers each; whoever needs them does it."""
        width = shape[0] // sum(strand.channels for strand in view.strands)
        before = view.after.calls if len(view.strands) == 1 else ()
        strands = tuple(
            replace(
                s,
                width=width,
                piece=Piece(
                    (*s.piece.calls, *before, call), s.piece.in_place or view.after.in_place
                ),
            )
            for s in view.strands
        )
        self._views[node] = Operand(strands, Piece() if before else view.after)

    def _alone(self, region: Region, closing: Piece) -> None:
        """A stage of per-channel operations alone, on a value that is needed elsewhere too."""
        self._stage(replace(region, sort="join"))
        stage = list(self._stages.values())[-1]
        stage.core = Call(region.result.name, lambda value: value)
        stage.closing = closing
        stage.map_shape = cast(tuple[int, ...], self._facts[region.fed[0]].shape)

    def _goes_along(self, before: fx.Node, node: fx.Node) -> bool:
        """Is the operation the only one that needs its value, and are channels the same behind it?"""
        if len([user for user in before.users if not (counts_rows(user) or is_shape(user))]) > 1:
            return False
        shape, after = self._facts[before].shape, self._facts[node].shape
        same = shape is not None and after is not None and shape[0] == after[0]
        return same and not (
            len(after or ()) < len(shape or ()) and _reshapes(self._recorded, node)
        )

    def _stage(self, region: Region, module: nn.Module | None = None) -> None:
        node = region.result
        operands = tuple(self._views[each] for each in region.fed)
        shape = cast(tuple[int, ...], self._facts[node].shape)
        name = str(node.target) if node.op == "call_module" else node.name
        flops = float(prod(shape)) * max(1, len(operands) - 1)
        core = self._call(node)
        if module is not None:
            flops = 2.0 * module.get_parameter("weight")[0].numel() * prod(shape[1:]) * shape[0]
        elif region.sort == "whole":
            name = self._path(region) or name
            core = self._whole(region)
            flops = self._counted(region, core)
        name = name if name not in self._stages else f"{name}@{node.name}"
        self._stages[name] = _Open(
            name, region.sort, operands, core, module, flops, shape, node, shape,
            self._tensors(region.nodes),
        )  # fmt: skip
        self._views[node] = Operand((Strand(name, shape[0]),))

    def _path(self, region: Region) -> str | None:
        """The module that a region is, if it is one."""
        stacks = [list(n.meta.get("nn_module_stack") or ()) for n in region.nodes]
        shared = [path for path in stacks[0] if all(path in stack for stack in stacks)]
        return shared[-1] if shared and len(region.nodes) > 1 else None

    def _call(self, node: fx.Node) -> Call:
        facts = self._facts[node]
        return call_of(self._recorded, node, facts.first, facts.dropouts)

    def _whole(self, region: Region) -> Call:
        first = min(self._facts[node].first for node in region.nodes)
        run = region_of(self._recorded, region.nodes, region.fed, region.result)
        dropouts = sum(self._facts[node].dropouts for node in region.nodes)
        return Call(region.result.name, run, None, first, dropouts)

    def _counted(self, region: Region, core: Call) -> float:
        """FLOPs of a module taken whole, as torch counts them, or one a number where it counts none."""
        weight = next(self._module.parameters())
        fed = [
            torch.zeros(
                2, *cast(tuple[int, ...], self._facts[each].shape), device=weight.device,
                dtype=weight.dtype,
            )
            for each in region.fed
        ]  # fmt: skip
        was_training = self._module.training
        self._module.eval()
        # attention has short cuts that the counter does not see: without gradients, and fused
        plain = sdpa_kernel(SDPBackend.MATH)
        counter = FlopCounterMode(display=False)
        with torch.random.fork_rng(devices=[]), plain, counter:
            core(*fed)
        self._module.train(was_training)
        least = prod(cast(tuple[int, ...], self._facts[region.result].shape))
        return max(counter.get_total_flops() / 2, float(least))

    def _tensors(self, nodes: Sequence[fx.Node]) -> list[str]:
        """State-dict names of what these nodes use, in the order of the state dict of each module."""
        found: dict[str, None] = {}
        for node in nodes:
            if node.op == "get_attr":
                found[str(node.target)] = None
            elif node.op == "call_module":
                module = self._module.get_submodule(str(node.target))
                found |= {f"{node.target}.{name}": None for name in module.state_dict()}
        return [name for name in found if name in self._state]

    def graph(self, stem: int, labels: str) -> Graph:
        """All of it, with a place for each stage."""
        (output,) = (node for node in self._recorded.graph.nodes if node.op == "output")
        if len(output.all_input_nodes) != 1 or output.args[0] is not output.all_input_nodes[0]:
            raise UsageError("the network gives more than one value; expected one (rows, classes)")
        (node,) = output.all_input_nodes
        result = self._views[node]
        drawn = [
            Drawn(s.name, s.sort, tuple(name for o in s.operands for name in o.sources))
            for s in self._stages.values()
        ]
        places = places_of(drawn, stem, labels)
        stages = tuple(
            self._finished(stage, place)
            for stage, place in zip(self._stages.values(), places, strict=True)
        )
        if labels != "tail":
            last = loss_stage(
                result, cast(tuple[int, ...], self._facts[node].shape), stages, labels
            )
            stages, result = (
                (*stages, last),
                Operand((Strand(last.layer.name, last.layer.channels),)),
            )
        check_places(stages, result)
        return Graph(stages, result, self._recorded)

    def _finished(self, stage: _Open, place: str) -> Stage:
        inputs = dict.fromkeys(s for operand in stage.operands for s in operand.sources)
        described = Layer(
            name=stage.name,
            cut=stage.last.name,
            place=place,
            channels=stage.shape[0],
            shape=stage.shape,
            parameters=tuple(stage.tensors),
            inputs=tuple(name for name in inputs if name),
            map_shape=stage.map_shape,
        )
        check_batch_norm(described, stage.closing, place)
        return Stage(
            described, stage.sort, stage.operands, stage.core, stage.module, stage.closing,
            stage.map_shape, stage.flops, {name: self._state[name] for name in stage.tensors},
        )  # fmt: skip


def _reshapes(recorded: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(recorded.get_submodule(str(node.target))) is nn.Flatten
    return node.target in ("flatten", "view", "reshape", torch.flatten)


def _check_same(module: nn.Module, graph: Graph, sample: Tensor) -> None:
    """Stages must compute what the module computes, bit for bit: whatever works in place shows here."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(3, *sample.shape[1:], generator=rng, dtype=torch.float64).to(sample)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            same = torch.equal(graph(x.clone()), module(x.clone()))
    finally:
        module.train(was_training)
    if not same:
        raise UsageError(
            "the network computes something else than its calls one by one; expected no operation "
            "that overwrites a value which is needed later: write x = x + y for x += y, and leave "
            "inplace=True out where a value is used twice"
        )
