"""Who runs which stage: owners the stem and the tail, the crowd the body; and where the loss is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Layer
from privbench.errors import UsageError
from privbench.slicenet.graph import Graph, Operand, Stage
from privbench.slicenet.ops import BATCH_NORMS, Call, Piece

LABELS = ("tail", "logits", "shared")
"""Owners run the last layer; the crowd hosts it, and owners compute the loss; the crowd does both."""

LABEL_BYTES = 8
"""A label is a 64-bit number."""


@dataclass(frozen=True)
class Drawn:
    """A stage without a place yet: its name, its sort, and what feeds it ("" = the samples)."""

    name: str
    sort: str
    sources: tuple[str, ...]


def check_labels(labels: str) -> None:
    """Refuse an unknown mode.

    Raises:
        UsageError: names the right ones.
    """
    if labels not in LABELS:
        raise UsageError(f"regime.labels={labels} is unknown; expected one of {', '.join(LABELS)}")


def check_range(labels: Int64[Tensor, " n"] | None, graph: Graph) -> None:
    """Refuse records without labels, or with one of which the network's answer knows nothing.

    Raises:
        UsageError: says which label was found, and where.
    """
    classes = sum(strand.channels * strand.width for strand in graph.result.strands)
    if labels is None:
        raise UsageError(
            "these records have no labels, and a crowd learns from labelled ones alone"
        )
    wrong = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise UsageError(
            f"record {first} has label {int(labels[first])}, and the network answers with {classes} "
            f"classes; expected labels from 0 to {classes - 1}: mend the data, or choose a model with "
            "more classes"
        )


def places_of(stages: Sequence[Drawn], stem: int, labels: str) -> list[str]:
    """Stem: the first layers and what depends on them alone; tail: the last layer and all behind it.

    Raises:
        UsageError: there are too few layers.
    """
    core = [number for number, stage in enumerate(stages) if stage.sort != "join"]
    tail = labels == "tail"
    least, parts = (stem + 2, "stem, body, tail") if tail else (stem + 1, "stem, body")
    if len(core) < least:
        raise UsageError(
            f"with regime.stem={stem} it needs at least {least} layers ({parts}), or modules "
            f"that are taken whole, and this one has {len(core)}; choose a deeper model, for example "
            "model.widths=[64,128,64,32,10], or regime=centralized"
        )
    last, end = core[-1] if tail else len(stages), core[stem - 1] + 1
    early = {stage.name for stage in stages[:end]}
    while end < core[stem] and set(stages[end].sources) <= early | {""}:
        early.add(stages[end].name)
        end += 1
    return ["stem"] * end + ["body"] * (last - end) + ["tail"] * (len(stages) - last)


def loss_stage(
    result: Operand, shape: tuple[int, ...], stages: Sequence[Stage], labels: str
) -> Stage:
    """A stage that gives on the network's answer: of the tail for ``logits``, of the body for ``shared``.

    Args:
        result: the answer, from the values of ``stages``.
        shape: of the answer for one sample.
    """
    taken = {stage.layer.name for stage in stages}
    name = "loss" if "loss" not in taken else "loss@output"
    layer = Layer(
        name=name,
        cut="output",
        place="tail" if labels == "logits" else "body",
        channels=shape[0],
        shape=shape,
        parameters=(),
        inputs=tuple(source for source in result.sources if source),
        map_shape=shape,
    )
    core = Call(name, lambda value: value)
    return Stage(layer, "loss", (result,), core, None, Piece(), shape, 0.0, {})


def check_places(stages: Sequence[Stage], result: Operand) -> None:
    """Samples are needed in the stem alone, and the answer comes from the last layer's side.

    Raises:
        UsageError: they are needed elsewhere, or it does not.
    """
    for number, stage in enumerate(stages):
        raw = any("" in operand.sources for operand in stage.operands)
        if raw and stage.layer.place != "stem":
            deeper = len([s for s in stages[: number + 1] if s.sort != "join"])
            raise UsageError(
                f"'{stage.layer.name}' works on the samples themselves, which must not leave their "
                f"owners; let owners run all layers up to it: regime.stem={deeper}"
            )
    tail = {stage.layer.name for stage in stages if stage.layer.place == "tail"}
    if stages[-1].sort != "loss" and not set(result.sources) <= tail:
        raise UsageError(
            f"the network's answer holds values of {sorted(set(result.sources) - tail)} beside those "
            "of its last layer; expected all of it to come from there"
        )


def check_batch_norm(layer: Layer, closing: Piece, place: str) -> None:
    """Refuse it where owners would run it, each on rows of its own.

    Raises:
        UsageError: there is one, behind a layer of stem or tail.
    """
    if place == "body" or not any(isinstance(m, BATCH_NORMS) for m in closing.modules()):
        return
    raise UsageError(
        f"batch norm behind '{layer.name}', in the {place}: owners run it on their own rows, so its "
        "statistics would not be those of the whole batch, and training not that of one machine; use "
        "group norm there (torch.nn.GroupNorm), or a model without batch norm in its first and last layer"
    )
