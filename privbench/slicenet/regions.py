"""Which calls of a traced network stay together, because what they do cannot be split by channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from privbench.errors import UsageError
from privbench.slicenet.noise import Masks
from privbench.slicenet.ops import counts_rows, is_shape, sort_of, values_of

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Facts:
    """What a trial run tells about a node.

    Args:
        shape: of its value for one sample; None = no tensor with one entry a sample on its first axis.
        dropouts: dropout calls that it makes; ``first``, how many came before.
    """

    shape: Shape | None
    first: int = 0
    dropouts: int = 0


@dataclass(frozen=True, eq=False)
class Region:
    """Nodes that are taken as one: a single call that is understood, or several as a black box.

    Args:
        nodes: in order.
        sort: of ``ops.sort_of``, or ``whole``.
        fed: nodes outside whose values it needs, in order of their use.
        result: the node whose value goes on.
    """

    nodes: tuple[fx.Node, ...]
    sort: str
    fed: tuple[fx.Node, ...]
    result: fx.Node


class _Trial(fx.Interpreter):
    """Runs a network once on samples of zeros and notes shapes."""

    def __init__(self, traced: fx.GraphModule, rows: int) -> None:
        super().__init__(traced)
        self.rows = rows
        self.shapes: dict[fx.Node, Shape | None] = {}
        self.calls: dict[fx.Node, tuple[int, int]] = {}
        self._first = 0

    def run_node(self, n: fx.Node) -> Any:
        with Masks(0, self._first) as masks:
            value = super().run_node(n)
        self.calls[n] = (self._first, masks.calls)
        self._first += masks.calls
        fits = isinstance(value, Tensor) and value.ndim >= 2 and len(value) == self.rows
        self.shapes[n] = tuple(value.shape[1:]) if fits and value.is_floating_point() else None
        return value


def facts_of(traced: fx.GraphModule, sample: Tensor) -> dict[fx.Node, Facts]:
    """Shapes and dropout calls of every node, from two trial runs with 2 and 3 rows.

    Args:
        sample: zeros ``(1, *shape)``, on the device and in the type of the network.

    Raises:
        UsageError: the network does not take such samples, or its shapes depend on more than the
            number of rows.
    """
    trials = []
    for rows in (2, 3):
        trial = _Trial(traced, rows)
        try:
            with torch.no_grad():
                trial.run(sample.expand(rows, *sample.shape[1:]).clone())
        except (
            Exception
        ) as cause:  # whatever a user's network raises on samples it was not made for
            raise UsageError(
                f"the network does not run on {rows} samples of shape {tuple(sample.shape[1:])}: "
                f"{' '.join(str(cause).split())}; its shapes must depend on nothing but the number of rows"
            ) from cause
        trials.append(trial)
    few, many = trials
    found = {}
    for node, shape in few.shapes.items():
        same = shape is not None and shape == many.shapes[node]
        found[node] = Facts(shape if same else None, *few.calls[node])
    return found


def regions_of(traced: fx.GraphModule, facts: dict[fx.Node, Facts]) -> tuple[Region, ...]:
    """The network as regions in order; every value between two of them has one entry a sample.

    A call that is not understood takes its smallest enclosing module with it, at the outermost level
    itself alone; neighbours join until one tensor goes in for each sample and one comes out.

    Raises:
        UsageError: no such regions exist: what leaves the network is no tensor with a row a sample.
    """
    nodes = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output")]
    places = {node: place for place, node in enumerate(nodes)}
    spans = [_enclosing(traced, nodes, places, node) for node in _opaque(traced, nodes, facts)]
    spans += _shared(traced, nodes, places)
    grown = _grown(nodes, places, facts, _merged(spans))
    found: list[Region] = []
    place = 0
    for start, end in [*grown, (len(nodes), len(nodes))]:
        for node in nodes[place:start]:
            if not (counts_rows(node) or is_shape(node) or node.op == "get_attr"):
                sort = sort_of(traced, node) or "whole"
                found.append(Region((node,), sort, tuple(values_of(node)), node))
        if start < end:
            found.append(_region(nodes[start:end]))
        place = end
    return tuple(found)


def _opaque(
    traced: fx.GraphModule, nodes: Sequence[fx.Node], facts: dict[fx.Node, Facts]
) -> list[fx.Node]:
    """Nodes that are not what channels can be cut through."""
    return [
        node
        for node in nodes
        if node.op != "get_attr"
        and not (counts_rows(node) or is_shape(node))
        and not _understood(traced, node, facts)
    ]


def _understood(traced: fx.GraphModule, node: fx.Node, facts: dict[fx.Node, Facts]) -> bool:
    sort, fed, shape = sort_of(traced, node), values_of(node), facts[node].shape
    shapes = [facts[each].shape for each in fed]
    if sort is None or shape is None or not fed or any(each is None for each in shapes):
        return False
    known = [each for each in shapes if each is not None]
    if sort == "layer":
        linear = type(traced.get_submodule(str(node.target))) is nn.Linear
        return len(known) == 1 and (len(known[0]) == 1 or not linear)
    if sort == "cat":
        axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        return bool(axis == 1 and list(cast(list[fx.Node], node.args[0])) == fed)
    if sort == "join":
        return all(each[0] == shape[0] and len(each) == len(shape) for each in known)
    if len(known) != 1:
        return False
    if sort == "elementwise":
        return known[0] == shape
    (before,) = known
    if shape[0] == before[0]:
        return _keeps_channels(traced, node)
    return len(shape) == 1 and len(before) > 1 and _flattens(traced, node)


def _flattens(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Is it a flatten of all axes behind the rows, in whatever words?"""
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target))) is nn.Flatten
    return node.target in ("flatten", "view", "reshape") or node.target is torch.flatten


def _keeps_channels(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Does a reduction leave the channel axis alone? Other per-channel calls do."""
    if node.target in ("view", "reshape"):
        return False  # the same number of channels does not say that they are the same
    if node.target not in ("mean", "sum", "amax", torch.mean, torch.sum, torch.amax):
        return True
    axes = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    chosen = (axes,) if isinstance(axes, int) else axes
    return isinstance(chosen, tuple | list) and all(a not in (0, 1) for a in chosen)


def _enclosing(
    traced: fx.GraphModule, nodes: Sequence[fx.Node], places: dict[fx.Node, int], node: fx.Node
) -> tuple[int, int]:
    """The nodes of the smallest module around a call; a module that is called is its own."""
    place = places[node]
    if node.op == "call_module":
        return place, place + 1
    stack = list(node.meta.get("nn_module_stack") or ())
    if not stack:
        return place, place + 1
    inside = [
        p for p, each in enumerate(nodes) if stack[-1] in (each.meta.get("nn_module_stack") or ())
    ]
    return min(inside), max(inside) + 1


def _shared(
    traced: fx.GraphModule, nodes: Sequence[fx.Node], places: dict[fx.Node, int]
) -> list[tuple[int, int]]:
    """What is used more than once, a module or a parameter of several, belongs to one host, with all
    that lies between."""
    uses: dict[str | int, set[int]] = {}
    for node in nodes:
        if node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            keys: tuple[str | int, ...] = (str(node.target), *(id(p) for p in module.parameters()))
            for key in keys:
                uses.setdefault(key, set()).add(places[node])
        elif node.op == "get_attr":
            held = _held(traced, str(node.target))
            if isinstance(held, nn.Parameter):
                uses.setdefault(id(held), set()).update(
                    places[user] for user in node.users if user in places
                )
    return [(min(found), max(found) + 1) for found in uses.values() if len(found) > 1]


def _held(traced: fx.GraphModule, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(traced.get_submodule(owner), name)


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, overlapping ones as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _grown(
    nodes: Sequence[fx.Node],
    places: dict[fx.Node, int],
    facts: dict[fx.Node, Facts],
    spans: list[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Spans widened until what goes in and out is a tensor with a row for each sample."""
    while True:
        wider = _merged([_wider(nodes, places, facts, span) for span in spans])
        if wider == spans:
            return spans
        spans = wider


def _wider(
    nodes: Sequence[fx.Node],
    places: dict[fx.Node, int],
    facts: dict[fx.Node, Facts],
    span: tuple[int, int],
) -> tuple[int, int]:
    start, end = span
    for node in nodes[start:end]:
        for given in node.all_input_nodes:
            if given in places and places[given] < start and facts[given].shape is None:
                if not (counts_rows(given) or _constant(given)):
                    start = min(start, places[given])
    leaving = _leaving(nodes[start:end])
    if len(leaving) == 1 and facts[leaving[0]].shape is not None:
        return start, end
    if end == len(nodes):
        raise UsageError(
            f"the network ends in '{nodes[-1].name}', whose value is no tensor with a row for each "
            "sample; expected (rows, classes)"
        )
    return start, end + 1


def _leaving(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Those whose values are used outside."""
    inside = set(nodes)
    return [
        node
        for node in nodes
        if node.op != "get_attr" and any(u not in inside and not _asks_shape(u) for u in node.users)
    ]


def _asks_shape(node: fx.Node) -> bool:
    return counts_rows(node) or is_shape(node)


def _constant(node: fx.Node) -> bool:
    return node.op == "get_attr"


def _region(nodes: Sequence[fx.Node]) -> Region:
    inside = set(nodes)
    fed: dict[fx.Node, None] = {}
    constants: dict[fx.Node, None] = {}
    for node in nodes:
        for given in node.all_input_nodes:
            if given in inside or counts_rows(given):
                continue
            (constants if _constant(given) else fed)[given] = None
    (result,) = _leaving(nodes)
    return Region((*constants, *nodes), "whole", tuple(fed), result)
