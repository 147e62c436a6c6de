"""The simulated crowd: layers run whole in one process, messages are views of what they compute."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from privbench.contract import HEADER_BYTES, Message, Party, Samples, Topology, no_rows
from privbench.slicenet.clipping import Clipping
from privbench.slicenet.derive import FLOW, MAP, PARTS, Plan, plan_of
from privbench.slicenet.graph import Graph, parameters_of
from privbench.slicenet.links import OWNER
from privbench.slicenet.noise import Noise, seeded
from privbench.slicenet.owners import Dues, of_rows, plain, rerun
from privbench.slicenet.parcels import Parcels, nbytes
from privbench.slicenet.passes import Back, Pass, forward, part_of, replaced, stays, sum_of
from privbench.slicenet.router import CO_HOSTS, CrowdRouter
from privbench.slicenet.sums import hand_in, tell_sums
from privbench.wire.router import EVERYONE
from privbench.wire.wire import Wire

_WATCHED = ("activation", "partial_sum", "gradient", "stem_gradient", "tail_gradient", "labels")


class Simulated:
    """Trains a sliced network step by step, and says what devices would have sent.

    Parameters end bit-equal to centralized training's on the same batches, whoever listens: what
    devices compute in parts is computed for the messages alone, and takes the place of the whole
    only where a defense or an actor changed a message. The parts add up to the whole to rounding.

    Args:
        module: the network; trained in place.
        graph: its stages.
        topology: with layers and slices; device k is ``owners[k]``.
        wire: not yet opened.
        optimizer: element-wise, over all parameters of ``module``.
        loss: name in ``torch.nn.functional``, the mean over rows.
        noise_seed: random layers draw from ``noise_seed + step``, as in centralized training.
        clip: the largest norm of a step's whole gradient; None = any.
        micro_batch: rows that are computed at a time, their gradients added up; None = all of a step.

    Where the topology has ``min_owners``, the coordinator hears the sum of the owners' gradients of
    stem and tail alone; defenses and actors change each owner's before it is added.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: Graph,
        topology: Topology,
        wire: Wire,
        optimizer: Optimizer,
        loss: str,
        noise_seed: int,
        clip: float | None = None,
        micro_batch: int | None = None,
    ) -> None:
        self._module, self._graph, self._topology = module, graph, topology
        self._wire, self._optimizer, self._noise = wire, optimizer, Noise(noise_seed)
        self._loss, self._micro_batch = getattr(F, loss), micro_batch
        self._router = CrowdRouter(topology)
        self._stages = graph.stages
        self._travelling = frozenset(graph.travelling)
        self._host()
        self._owned = {place: parameters_of(graph.placed(place)) for place in ("stem", "tail")}
        self._plain = {place: plain(graph.placed(place)) for place in ("stem", "tail")}
        self._parcels = Parcels(wire, self._owned, self._stages)
        self._clipping = None if clip is None else Clipping(clip, wire, module.parameters())
        self._step = 0
        self._rows = self._owners = no_rows()
        self._dues: dict[str, Dues] = {}
        self._summed = topology.min_owners is not None
        wire.open(topology, self._router)

    def step(self, number: int, batch: Samples, owners: Int64[Tensor, " rows"]) -> Tensor | None:
        """One training step on the mean loss of a batch, which is returned; None = there was no step.

        Args:
            number: from 0; before the first, hosts get their slices, after the last
                (``topology.steps``) they hand them in.
            batch: labelled rows, where the module is.
            owners: number of each row's owner, on the CPU.
        """
        self._begin(number, owners)
        loss = self._differentiate(number, batch)
        if self._clipping is not None:
            self._clipping.clip(number, self._links.pieces, self._stages)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if number == self._topology.steps - 1:
            self._parcels.slices(number, self._links.pieces, to_hosts=False)
        return loss

    def _differentiate(self, number: int, batch: Samples) -> Tensor:
        """Forward and backward pass: leaves gradients in the module, and tells the wire."""
        with seeded(self._noise.seed + number, batch.x.device), self._parcels.received():
            if self._micro_batch is not None or any(
                self._wire.wants(number, kind) for kind in _WATCHED
            ):
                return self._seen(batch)
            with self._noise.at():
                loss = self._mean(self._module(batch.x), self._heard_labels(batch.y))
            loss.backward()
            self._count_unseen(batch.x.element_size())
            return loss.detach()

    def _heard_labels(self, labels: Tensor | None) -> Tensor | None:
        """The labels as they are known where the loss is computed."""
        if labels is None or self._links.scorer is None:
            return labels
        if not self._wire.wants(self._step, "labels"):
            self._wire.count("labels", self._router.tally.labels(self._router.rows))
            return labels
        where, layer = (EVERYONE, EVERYONE, "labels"), self._links.last
        message = Message(self._step, "train", *where, layer, None, labels, self._rows)
        return self._wire.send(message).payload.to(labels)

    def _mean(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        """The step's loss; a replica, which has some rows of the batch alone, takes its part of it."""
        loss: Tensor = self._loss(logits, labels)
        return loss

    def _begin(self, number: int, owners: Int64[Tensor, " rows"]) -> None:
        self._step, self._rows, self._owners = number, torch.arange(len(owners)), owners
        self._noise.step, self._noise.rows = number, None
        self._wire.begin(number, owners)
        if self._router.links is not self._links:
            self._host()
        if number == 0:
            self._parcels.slices(number, self._links.pieces, to_hosts=True)
        self._hand_over()
        if self._wire.watches(number):
            self._wire.hold(number, self._module.state_dict())
        for place in ("stem", "tail") if len(owners) else ():
            self._parcels.broadcast(number, place, len(self._router.rows))

    def _host(self) -> None:
        """Who hosts what from this step on."""
        self._links = self._router.links
        self._sums = {layer.name: self._links.sums(layer.name) for layer in self._graph.layers}
        self._plan = plan_of(self._graph, self._links)

    def _derived(self, kind: str) -> Plan:
        """Of which layers messages of this kind need not be worked out now."""
        if self._micro_batch is not None or not self._wire.derives(self._step, kind):
            return Plan()
        return self._plan

    def _hand_over(self) -> None:
        """Slices change hands where devices fail; here none does."""

    def _count_unseen(self, element: int) -> None:
        """Bytes of what nobody looks at, by the tally alone."""
        rows = self._router.rows
        forward = self._router.tally.forward(rows, element)
        partial = self._router.tally.partial(sum(rows.values()), element)
        self._wire.count("activation", forward)
        self._wire.count("partial_sum", partial)
        self._wire.count("gradient", forward + partial)
        for place in ("stem", "tail"):
            self._count_owned(f"{place}_gradient", place)

    def _count_owned(self, kind: str, place: str) -> None:
        each = sum(nbytes(tensor) + HEADER_BYTES for tensor in self._owned[place].values())
        self._wire.count(kind, each * len(self._router.rows))

    def _seen(self, batch: Samples) -> Tensor:
        """The same stage by stage, with every message that somebody wants, some rows at a time."""
        every, owners = self._rows, self._owners
        self._dues = {place: Dues() for place in ("tail", "stem")}
        if self._micro_batch is None or len(every) <= self._micro_batch:
            loss = self._watched(batch)
        else:
            loss = batch.x.new_zeros(())
            for rows in every.split(self._micro_batch):
                self._turn_to(rows, owners[rows])
                loss = loss + self._watched(batch[rows], len(rows) / len(every))
            self._turn_to(every, owners)
        for place in ("tail", "stem"):
            self._owners_send(place)
        return loss

    def _turn_to(self, rows: Int64[Tensor, " n"], owners: Int64[Tensor, " n"]) -> None:
        """These rows of the step are computed from now on."""
        self._rows = self._noise.rows = rows
        self._router.begin(self._step, owners)

    def _watched(self, batch: Samples, share: float = 1.0) -> Tensor:
        """Forward and backward pass of some rows, which are this share of the step's."""
        if self._derived("gradient").maps or self._derived("partial_sum").sums:
            used = [stage for stage in self._stages if stage.layer.name in self._plan.layers]
            weights = {f"{stage.layer.name}.weight": stage.weight for stage in used}
            self._wire.lend(self._step, weights)
        done, values = self._forward(batch.x)
        ends = [values[name] for name in self._graph.result.sources]
        logits = self._graph.result(values)
        loss = self._mean(logits, self._heard_labels(batch.y)) * share
        slopes = torch.autograd.grad(loss, ends)
        self._backward(done, values, dict(zip(self._graph.result.sources, slopes, strict=True)))
        self._wire.get_back()
        return loss.detach()

    def _forward(self, x: Tensor) -> tuple[list[Pass], dict[str, Tensor]]:
        done: list[Pass] = []
        values: dict[str, Tensor] = {"": x}
        for stage in self._graph.stages:
            ran = self._reduced(forward(stage, values, self._noise))
            done.append(ran)
            value = ran.out.detach()
            if stage.layer.name in self._travelling:
                whole = self._message("activation", stage.layer.name, value, EVERYONE, EVERYONE)
                value = self._wire.send(whole).payload.to(value)
            values[stage.layer.name] = value.detach().requires_grad_()
        return done, values

    def _reduced(self, ran: Pass) -> Pass:
        """Partial sums of a stage whose weights are spread by columns, sent to their reducers."""
        sums = self._sums[ran.stage.layer.name]
        if not sums:
            return ran
        name, derived = ran.stage.layer.name, self._derived("partial_sum").sums
        if name in derived or not self._wire.wants(self._step, "partial_sum"):
            count = self._router.tally.sums(name, len(ran.mapped), ran.mapped.element_size())
            self._wire.count("partial_sum", count)
            if name in derived:
                self._lay_by("partial_sum", name, ran.mapped.new_empty(len(ran.mapped), 0), PARTS)
            return ran
        whole = ran.mapped.detach().clone()
        changed = False
        for each in sums:
            total = sum_of(self._links, ran, each.reducer, each.units)
            altered = False
            for host in each.others:
                part = sum_of(self._links, ran, host, each.units)
                sent = self._message("partial_sum", name, part, host, each.reducer, each.units)
                got = self._wire.send(sent)
                altered = altered or got.payload is not part
                total = total + got.payload.to(total)
            if altered:
                changed = True
                if ran.stage.bias is not None:
                    bias = ran.stage.bias.detach()[list(each.units)]
                    total = total + bias.reshape(-1, *[1] * (total.ndim - 2))
                whole[:, list(each.units)] = total
        return replaced(ran, whole, self._noise) if changed else ran

    def _backward(
        self, done: list[Pass], values: dict[str, Tensor], slopes: dict[str, Tensor]
    ) -> None:
        """From the gradients of the last values to every parameter's."""
        flows: dict[str, list[tuple[Pass, Back]]] = {stage.layer.name: [] for stage in self._stages}
        deltas: dict[str, Tensor] = {}
        arrived = dict(slopes)  # at the owners: gradients of what leaves stem and tail
        for ran in reversed(done):
            name = ran.stage.layer.name
            parts = [slopes[name]] if name in slopes else []
            parts += [back.flows[name] for _, back in flows[name]]
            gradient = sum(parts[1:], parts[0])
            if name in self._travelling:
                gradient, arrived[name] = self._returned(ran, gradient, flows[name])
            elif beside := [b.flows[name] for r, b in flows[name] if stays(ran, r)]:
                arrived[name] = sum(beside[1:], beside[0])
            back = self._to_hosts(ran, ran.backward(gradient))
            deltas[name] = back.delta
            self._lay_flows_by(name, back)
            back.add_to(ran.stage)
            for source in back.flows:
                flows[source].append((ran, back))
        for place in ("tail", "stem"):
            self._owners_find(place, done, deltas, values, arrived)

    def _lay_flows_by(self, name: str, back: Back) -> None:
        """What others' messages follow from."""
        plan = self._derived("gradient")
        if name in plan.maps:
            self._lay_by("gradient", name, back.delta, MAP)
        for source in plan.flows.get(name, ()):
            self._lay_by("gradient", source, back.flows[source], FLOW, name)

    def _to_hosts(self, ran: Pass, back: Back) -> Back:
        """Reducers tell the other hosts the gradient of the sum that they computed together."""
        name = ran.stage.layer.name
        if not self._sums[name]:
            return back
        if not self._wire.wants(self._step, "gradient"):
            element = back.delta.element_size()
            self._wire.count("gradient", self._router.tally.sums(name, len(back.delta), element))
            return back
        delta = back.delta
        for each in self._sums[name]:
            part = back.delta[:, list(each.units)]
            sent = self._message("gradient", name, part, each.reducer, CO_HOSTS, each.units)
            got = self._wire.send(sent)
            if got.payload is not part:
                delta = delta.clone() if delta is back.delta else delta
                delta[:, list(each.units)] = got.payload.to(delta)
        return back if delta is back.delta else ran.backward_from(back, delta)

    def _returned(
        self, ran: Pass, whole: Tensor, flows: Sequence[tuple[Pass, Back]]
    ) -> tuple[Tensor, Tensor]:
        """Each consuming device sends its part of the gradient of what travelled from a layer.

        Returns:
            the whole gradient as its makers know it, and that of what left the stem, if they are owners.
        """
        name = ran.stage.layer.name
        inside = [b.flows[name] for r, b in flows if r.stage.layer.place == ran.stage.layer.place]
        stem = ran.stage.layer.place == "stem"
        local = sum(inside[1:], inside[0]) if stem and inside else None
        derived = name in self._derived("gradient").sources
        if derived or not self._wire.wants(self._step, "gradient"):
            element = whole.element_size()
            count = self._router.tally.layer(name, self._router.rows, element)
            self._wire.count("gradient", count)
            if derived:
                self._lay_parts_by(name, whole, flows)
            return whole, whole if local is None else whole - local
        changed = False
        total = torch.zeros_like(whole)
        for kept in (b.flows[name] for r, b in flows if stem and r.stage.layer.place == "tail"):
            total += kept
        for need in self._links.consumers(name):
            units = tuple(range(whole.shape[1])) if need.units is None else need.units
            part = part_of(self._links, name, need.party, flows)
            part = part if need.units is None else part[:, list(units)]
            sent = self._message("gradient", name, part, need.party, EVERYONE, units)
            got = self._wire.send(sent)
            changed = changed or got.payload is not part
            total[:, list(units)] += got.payload.to(total)
        if not changed:
            return whole, total
        return (total if local is None else total + local), total

    def _lay_parts_by(self, name: str, whole: Tensor, flows: Sequence[tuple[Pass, Back]]) -> None:
        """Hosts' parts are derived; owners' follow from labels, which no recording has."""
        self._lay_by("gradient", name, whole.new_empty(len(whole), 0), PARTS)
        if any(need.party == OWNER for need in self._links.consumers(name)):
            part = part_of(self._links, name, OWNER, flows)
            self._lay_by("gradient", name, part, EVERYONE, OWNER)

    def _lay_by(
        self, kind: str, layer: str, payload: Tensor, receiver: Party, sender: Party = EVERYONE
    ) -> None:
        self._wire.lay_by(self._message(kind, layer, payload, sender, receiver))

    def _owners_find(
        self,
        place: str,
        done: Sequence[Pass],
        deltas: dict[str, Tensor],
        values: dict[str, Tensor],
        arrived: dict[str, Tensor],
    ) -> None:
        """Each owner's gradient of its own rows, as far as they have been computed."""
        if not self._due(f"{place}_gradient"):
            return
        mine = [ran for ran in done if ran.stage.layer.place == place]
        for owner, rows in self._router.groups():
            if self._plain[place]:
                found = of_rows(mine, deltas, rows)
            else:
                found = rerun(self._graph, place, values, arrived, rows, self._noise)
            self._dues[place].add(owner, self._rows[rows], found)

    def _owners_send(self, place: str) -> None:
        """Each owner sends it, one message a parameter tensor; or the sum is told alone."""
        kind, tensors = f"{place}_gradient", self._owned[place]
        if self._due(kind):
            hand_in(self._wire, self._step, kind, tensors, self._dues[place], self._summed)
        else:
            self._count_owned(kind, place)
        if self._summed and self._wire.wants(self._step, kind):
            tell_sums(self._wire, self._step, kind, tensors, self._rows)

    def _due(self, kind: str) -> bool:
        """Is each owner's gradient asked for? Under a mask nobody looks at it, but some may change it."""
        return self._wire.changes(kind) if self._summed else self._wire.wants(self._step, kind)

    def _message(
        self,
        kind: str,
        layer: str,
        payload: Tensor,
        sender: Party,
        receiver: Party,
        units: tuple[int, ...] | None = None,
    ) -> Message:
        held = tuple(range(payload.shape[1])) if units is None else units
        ends = (sender, receiver)
        return Message(self._step, "train", *ends, kind, layer, held, payload, self._rows)
