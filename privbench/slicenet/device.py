"""Devices of a sliced network, as owners and as hosts, each with nothing but what is its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Layer, Party, Samples, Slice
from privbench.slicenet.cutting import Work, work_of
from privbench.slicenet.graph import Stage
from privbench.slicenet.noise import Noise
from privbench.slicenet.office import Learner, Make
from privbench.slicenet.skeleton import Skeleton

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(n, classes)`` outputs and ``(n,)`` labels to the mean loss, a scalar."""

Copied = Callable[[Samples, Tensor, Tensor], Samples]
"""An owner's records, the numbers of all of a step, and its rows, to what it learns from."""


@dataclass(frozen=True, eq=False)
class Holdings:
    """A device's own records.

    Args:
        records: their numbers, ascending.
        samples: in the same order.
    """

    records: Int64[Tensor, " n"]
    samples: Samples

    def at(self, records: Int64[Tensor, " k"]) -> Samples:
        """Those of these numbers."""
        return self.samples[torch.searchsorted(self.records, records)]


class Owner:
    """Runs stem and tail on its own samples.

    Args:
        skeleton: of the network.
        constants: tensors of stem and tail that are not learned; public.
        holdings: its samples.
        loss: mean over rows.
        copied: makes the copies that it learns from in place of its records.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        constants: Mapping[str, Tensor],
        holdings: Holdings,
        loss: Loss,
        copied: Copied,
    ) -> None:
        self._skeleton, self._graph = skeleton, skeleton.graph
        self._constants, self._holdings, self._loss = constants, holdings, loss
        self._copied = copied
        self._public: dict[str, Tensor] = {}
        self._rows = torch.empty(0, dtype=torch.int64)
        self._batch = Samples(torch.empty(0))
        self._stem: dict[str, Tensor] = {}
        self.received: dict[str, Tensor] = {}
        self.arrived: dict[str, Tensor] = {}
        self.slopes: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.loss = 0.0

    def hear(self, name: str, value: Tensor) -> None:
        """A broadcast of stem or tail."""
        self._public[name] = value.clone().requires_grad_()

    def begin(self, rows: Int64[Tensor, " n"], records: Int64[Tensor, " batch"]) -> None:
        """A step with these records, of which those at some rows are its own."""
        own = self._holdings.at(records[rows])
        self._rows, self._batch = rows, self._copied(own, records, rows)
        self.received, self.arrived, self.slopes, self.gradients = {}, {}, {}, {}

    def forward(self, noise: Noise) -> None:
        """The stem."""
        stages = self._graph.placed("stem")
        with self._lent("stem"):
            self._stem = self._graph.run(stages, {"": self._batch.x}, noise, rows=self._rows)

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """Of its rows of this step."""
        return self._batch.y if self._batch.y is not None else torch.empty(0, dtype=torch.int64)

    def value(self, layer: str) -> Tensor:
        """Output of a layer of the stem."""
        return self._stem[layer].detach()

    def receive(self, layer: Layer, place: Any, payload: Tensor) -> None:
        """Channels that the tail needs; ``place`` indexes them."""
        if layer.name not in self.received:
            shape = (len(self._rows), *layer.shape)
            self.received[layer.name] = payload.new_zeros(shape)
        self.received[layer.name][:, place] = payload

    def receive_gradient(self, layer: str, place: Any, payload: Tensor) -> None:
        """A consumer's part of the gradient of what left the stem."""
        if layer not in self.arrived:
            self.arrived[layer] = torch.zeros_like(self._stem[layer])
        self.arrived[layer][:, place] += payload

    def turn(self, batch: int, noise: Noise) -> None:
        """The tail, the loss, and the gradients of what fed the tail."""
        stages = self._graph.placed("tail")
        inside = {stage.layer.name for stage in stages}
        needed = dict.fromkeys(n for s in stages for n in s.layer.inputs if n not in inside)
        fed = {
            name: (self.received[name] if name in self.received else self.value(name))
            .detach()
            .requires_grad_()
            for name in needed
        }
        with self._lent("tail"):
            values = self._graph.run(stages, fed, noise, rows=self._rows)
            logits = self._graph.result(values, noise, rows=self._rows)
            loss = self._loss(logits, self.labels) * (len(self._rows) / batch)
        self.loss = float(loss.detach())
        found = self._gradients("tail", [loss], None, list(fed.values()))
        for name, slope in zip(fed, found, strict=True):
            if name in self._stem:
                self.receive_gradient(name, slice(None), slope)
            else:
                self.slopes[name] = slope

    def backward(self) -> None:
        """The gradient of the stem."""
        ends = [name for name in self.arrived if self._stem[name].requires_grad]
        given = [self.arrived[name] for name in ends]
        self._gradients("stem", [self._stem[name] for name in ends], given, [])
        self._stem = {}

    def _gradients(
        self, place: str, outs: list[Tensor], given: list[Tensor] | None, wanted: list[Tensor]
    ) -> list[Tensor]:
        names = self._learned(place)
        own = [self._public[name] for name in names]
        found = torch.autograd.grad(outs, [*wanted, *own], given, allow_unused=True)
        filled = [
            torch.zeros_like(asked) if each is None else each
            for asked, each in zip([*wanted, *own], found, strict=True)
        ]
        self.gradients |= dict(zip(names, filled[len(wanted) :], strict=True))
        return filled[: len(wanted)]

    def _learned(self, place: str) -> list[str]:
        stages = self._graph.placed(place)
        return [name for stage in stages for name in stage.tensors if name in self._public]

    def _lent(self, place: str) -> Any:
        names = [name for stage in self._graph.placed(place) for name in stage.tensors]
        known = {**self._constants, **self._public}
        return self._skeleton.lent({name: known[name] for name in names})


class Host:
    """Computes its tiles of body stages.

    Args:
        name: of the device.
        skeleton: of the network.
        slices: its tiles.
        optimizer: element-wise; each host runs its own.
    """

    def __init__(
        self, name: Party, skeleton: Skeleton, slices: Sequence[Slice], make: Make
    ) -> None:
        pieces: defaultdict[str, list[Slice]] = defaultdict(list)
        for piece in slices:
            pieces[piece.layer].append(piece)
        self.name = name
        self._shapes = {stage.layer.name: stage.layer.shape for stage in skeleton.graph.stages}
        stages: list[Stage] = [s for s in skeleton.graph.placed("body") if s.layer.name in pieces]
        self.works: dict[str, Work] = {
            stage.layer.name: work_of(skeleton, stage, pieces[stage.layer.name]) for stage in stages
        }
        self.needs = frozenset(source for work in self.works.values() for source in work.sources)
        like = next(skeleton.graph.root.parameters()).detach()
        self._learner = Learner(make, [t for w in self.works.values() for t in w.trained()], like)
        self._values: dict[str, Tensor] = {}
        self.flows: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._added: dict[str, Tensor] = {}
        self._outs: dict[str, Tensor] = {}
        self._given: dict[str, Tensor] = {}
        self._deltas: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Forget the last step."""
        self._values, self.flows, self._sums, self._added = {}, {}, {}, {}
        self._outs, self._given, self._deltas = {}, {}, {}

    def receive(self, layer: Layer, batch: int, rows: Any, place: Any, payload: Tensor) -> None:
        """Channels that a tile needs; ``rows`` and ``place`` index rows of the batch and channels."""
        if layer.name not in self._values:
            self._values[layer.name] = payload.new_zeros((batch, *layer.shape))
        _Spot(self._values[layer.name], rows, place).put(payload)

    def spread(self, layer: str, noise: Noise) -> None:
        """What the device's tiles add to the map of a layer."""
        work = self.works[layer]
        known = self._values[work.sources[0]]
        for source in work.stage.layer.inputs:
            if source not in self._values:  # beside others, and none of it is needed
                shape = (len(known), *self._shapes[source])
                self._values[source] = known.new_zeros(()).expand(shape)
        self._sums[layer] = work.spread(self._values, noise)

    def partial(self, layer: str, units: tuple[int, ...]) -> Tensor:
        """The part of it for a block of channels."""
        return self._sums[layer][:, self.works[layer].in_touched.place(units)]

    def add(self, layer: str, units: tuple[int, ...], payload: Tensor) -> None:
        """What another host adds to a block that this one finishes."""
        if layer not in self._added:
            self._added[layer] = torch.zeros_like(self._sums[layer])
        self._added[layer][:, self.works[layer].in_touched.place(units)] += payload

    def finish(self, layer: str, noise: Noise) -> None:
        """The finished channels of a layer."""
        work = self.works[layer]
        if work.finished:
            total = self._sums[layer]
            if layer in self._added:
                total = total + self._added.pop(layer)
            total = total[:, work.in_touched.place(work.finished)]
            self._outs[layer] = work.finish(total, noise)
        del self._sums[layer]

    def out(self, layer: str, rows: Any, units: tuple[int, ...]) -> Tensor:
        """Some of them, for some rows."""
        place = self.works[layer].in_finished.place(units)
        return _Spot(self._outs[layer], rows, place).get()

    def receive_gradient(
        self, layer: str, rows: Any, units: tuple[int, ...], payload: Tensor
    ) -> None:
        """A consumer's part of the gradient of what this host made."""
        if layer not in self._given:
            self._given[layer] = torch.zeros_like(self._outs[layer])
        place = self.works[layer].in_finished.place(units)
        _Spot(self._given[layer], rows, place).add(payload)

    def turn(self, layer: str) -> None:
        """From the gradient of the finished channels to that of their sums."""
        work = self.works[layer]
        if work.finished:
            given = self._given.pop(layer, None)
            delta = work.back_to_sum(
                torch.zeros_like(self._outs[layer]) if given is None else given
            )
            shape = (len(delta), len(work.touched), *delta.shape[2:])
            self._deltas[layer] = delta.new_zeros(shape)
            self._deltas[layer][:, work.in_touched.place(work.finished)] = delta

    def delta(self, layer: str, units: tuple[int, ...]) -> Tensor:
        """The gradient of a block's sum."""
        return self._deltas[layer][:, self.works[layer].in_touched.place(units)]

    def receive_delta(self, layer: Layer, units: tuple[int, ...], payload: Tensor) -> None:
        """The gradient of the sum of a block that another host finishes."""
        work = self.works[layer.name]
        if layer.name not in self._deltas:
            shape = (len(payload), len(work.touched), *layer.map_shape[1:])
            self._deltas[layer.name] = payload.new_zeros(shape)
        self._deltas[layer.name][:, work.in_touched.place(units)] = payload

    def backward(self, layer: str) -> None:
        """From the gradients of the sums to those of weights and of what was fed."""
        flows = self.works[layer].back_to_entries(self._deltas.pop(layer))
        for source, flow in flows.items():
            self.flows[source] = self.flows[source] + flow if source in self.flows else flow

    def square(self) -> Tensor:
        """Squared norm of its slice's gradient."""
        return self._learner.square()

    def scale(self, factor: Tensor) -> None:
        """Multiply its slice's gradient."""
        self._learner.scale(factor)

    def learn(self) -> None:
        """One step."""
        self._learner.learn()


@dataclass(frozen=True, eq=False)
class _Spot:
    """Some rows and channels of a tensor; ``rows`` None = all."""

    tensor: Tensor
    rows: Any
    place: Any

    @property
    def _index(self) -> Any:
        if self.rows is None or isinstance(self.place, slice):
            return (slice(None) if self.rows is None else self.rows, self.place)
        return (self.rows[:, None], self.place)

    def get(self) -> Tensor:
        return self.tensor[self._index]

    def put(self, payload: Tensor) -> None:
        self.tensor[self._index] = payload

    def add(self, payload: Tensor) -> None:
        self.tensor[self._index] += payload
