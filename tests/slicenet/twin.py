"""The slow obvious twin: every device holds its own slice alone, and encoded messages go between.

It shares no code with the simulated engine, its router or its tracing: only the topology's slices
and the names of layers. Written for chains of ``Linear`` and ``Conv2d`` whose layers are followed by
ReLU (and, behind a convolution, by pooling).
"""

from __future__ import annotations

import math

import torch
from parties import Device, Learner, Mail, apply, finish
from twin_loss import turn

from privbench.contract import OWNERS, Message, Slice, Topology


class Twin:
    """A crowd of devices.

    Args:
        topology: names, places, slices.
        state: initial weights.
        optimizer: its Spec; every party runs its own.
        clip: the largest norm of the whole gradient.
    """

    def __init__(self, topology: Topology, state, optimizer, clip=None):
        self.topology, self.mail, self.clip = topology, Mail(), clip
        self.names = [layer.name for layer in topology.layers]
        (self.stem,) = [layer.name for layer in topology.layers if layer.place == "stem"]
        self.tail = self.names[-1]  # where logits meet labels
        self.body = self.names[1:-1]
        self.labels = topology.labels
        self.owned = (self.stem, self.tail) if self.labels == "tail" else (self.stem,)
        self.scorer = next((s.party for s in topology.slices if s.layer == self.tail), None)
        self.summands, self.masks = {}, torch.Generator().manual_seed(0)
        self.channels = {layer.name: layer.channels for layer in topology.layers}
        self.coordinator = Learner(optimizer)
        self.devices = {name: Device(name, optimizer) for name in topology.owners}
        for layer in self.owned:
            for part in ("weight", "bias"):
                self.coordinator.hold(f"{layer}.{part}", state[f"{layer}.{part}"])
                self._slice("coordinator", f"{layer}.{part}", None, state[f"{layer}.{part}"], True)
        for piece in topology.slices:
            if piece.layer != self.tail:
                self._give(piece, state)
        for party in (self.coordinator, *self.devices.values()):
            party.ready()

    def apply(self, weight, bias, x):
        """A layer's map."""
        return apply(weight, bias, x)

    def finish(self, layer, weight, value):
        """What follows a layer; behind the last one there is nothing."""
        last = self.labels != "tail" and layer == self.body[-1]
        return value if last else finish(weight, value)

    def _slice(self, party, name, units, tensor, start):
        ends = ("releaser", party) if start else (party, "releaser")
        self.mail.send("slice_weights", *ends, name, units, tensor)

    def _give(self, piece, state):
        device, units = self.devices[piece.party], list(piece.units)
        first = not any(other.of(piece.layer) for other in self.devices.values())
        device.blocks.append(piece)
        weight, bias = state[f"{piece.layer}.weight"], state[f"{piece.layer}.bias"]
        held = weight[units] if self.side == "output" else weight[:, self.columns(piece)]
        device.hold((piece, "weight"), held)
        named = None if piece.whole else piece.units
        self._slice(piece.party, f"{piece.layer}.weight", named, held, True)
        if self.side == "output":
            device.hold((piece, "bias"), bias[units])
            self._slice(piece.party, f"{piece.layer}.bias", named, bias[units], True)
        elif first:
            device.hold((piece, "bias"), bias)
            self._slice(piece.party, f"{piece.layer}.bias", named, bias, True)

    @property
    def side(self):
        cut = any(piece.columns is not None for piece in self.topology.slices)
        return "input" if cut else "output"

    def columns(self, piece):
        """Columns of the weight that a tile holds."""
        if piece.columns is not None:
            return list(piece.columns)
        before = self.names[self.names.index(piece.layer) - 1]
        return list(range(self.channels[before] * self.width(piece.layer, before)))

    def hosts(self, layer):
        return list(dict.fromkeys(s.party for s in self.topology.slices if s.layer == layer))

    def blocks(self, layer):
        return [s for s in self.topology.slices if s.layer == layer]

    def needs(self, party, layer, before):
        """Channels of ``before`` that a host of ``layer`` needs."""
        if self.side == "output":
            return list(range(self.channels[before]))
        columns = sorted(u for b in self.devices[party].of(layer) for u in self.columns(b))
        width = self.width(layer, before)
        return sorted({column // width for column in columns})

    def width(self, layer, before):
        flat = len(self.topology.layer(layer).shape) == 1
        return math.prod(self.topology.layer(before).shape[1:]) if flat else 1

    def step(self, number, x, y, owners):
        """One step; ``owners[i]`` = number of row i's owner."""
        self.mail.step = number
        names = self.topology.owners
        self.rows = {names[k]: (owners == k).nonzero().flatten() for k in owners.unique().tolist()}
        self.batch = len(x)
        for name in self.rows:
            for layer in self.owned:
                kind = "stem_weights" if layer == self.stem else "tail_weights"
                for part in ("weight", "bias"):
                    tensor = self.coordinator.tensors[f"{layer}.{part}"]
                    self.mail.send(kind, "coordinator", name, f"{layer}.{part}", None, tensor)
                    (got,) = self.mail.take(name, kind, f"{layer}.{part}")
                    self.devices[name].public[f"{layer}.{part}"] = got.payload.requires_grad_()
        for device in self.devices.values():
            device.memory = {}
        self._stem_forward(x)
        before = self.stem
        for layer in self.body:
            (self._output_forward if self.side == "output" else self._input_forward)(layer, before)
            before = layer
        turn(self, y, before)
        for layer in reversed(self.body):
            before = self.names[self.names.index(layer) - 1]
            (self._output_back if self.side == "output" else self._input_back)(layer, before)
        self._stem_back()
        self._sum_masked()
        if self.clip is not None:
            self._bound()
        for party in (self.coordinator, *self.devices.values()):
            party.learn()

    def _stem_forward(self, x):
        after = self.body[0]
        for name, rows in self.rows.items():
            device = self.devices[name]
            weight, bias = (device.public[f"{self.stem}.{p}"] for p in ("weight", "bias"))
            out = finish(weight, apply(weight, bias, x[rows]))
            device.memory["stem"] = out
            for host in self.hosts(after):
                units = self.needs(host, after, self.stem)
                if host != name:
                    self.mail.send(
                        "activation", name, host, self.stem, tuple(units), out[:, units], rows
                    )

    def gather(self, name, layer, kind):
        """All channels of a layer that reach a device, in place; the rest zero."""
        device = self.devices[name]
        whole = self.zeros(layer)
        if layer == self.stem and name in self.rows:
            whole[self.rows[name]] = device.memory["stem"].detach()
        for (made, units), out in device.memory.get("out", {}).items():
            if made == layer:
                whole[:, list(units)] = out.detach()
        for message in self.mail.take(name, kind, layer):
            whole[message.rows[:, None], torch.tensor(message.units)] = message.payload
        return whole

    def zeros(self, layer):
        shape = self.topology.layer(layer).shape
        return torch.zeros(
            self.batch, *shape, dtype=next(iter(self.coordinator.tensors.values())).dtype
        )

    def _spread(self, name, layer, units, out):
        """A producer's block goes to each device that needs some of it."""
        device = self.devices[name]
        device.memory.setdefault("out", {})[(layer, tuple(units))] = out
        everyone = torch.arange(self.batch)
        at = {unit: place for place, unit in enumerate(units)}
        if layer == self.body[-1] and self.scorer is not None:
            if self.scorer != name:
                ends = name, self.scorer
                self.mail.send("activation", *ends, layer, tuple(units), out, everyone)
            return
        if layer == self.body[-1]:
            for owner, rows in self.rows.items():
                if owner != name:
                    self.mail.send("activation", name, owner, layer, tuple(units), out[rows], rows)
            return
        after = self.body[self.body.index(layer) + 1]
        for host in self.hosts(after):
            wanted = [unit for unit in self.needs(host, after, layer) if unit in at]
            if host != name and wanted:
                part = out[:, [at[unit] for unit in wanted]]
                self.mail.send("activation", name, host, layer, tuple(wanted), part, everyone)

    def _output_forward(self, layer, before):
        for name in self.hosts(layer):
            device = self.devices[name]
            x = self.gather(name, before, "activation").requires_grad_()
            device.memory[("x", layer)] = x
            for block in device.of(layer):
                weight, bias = (device.tensors[(block, p)] for p in ("weight", "bias"))
                out = self.finish(layer, weight, apply(weight, bias, x))
                device.memory[("y", block)] = out
        for block in self.blocks(layer):
            out = self.devices[block.party].memory[("y", block)]
            self._spread(block.party, layer, block.units, out)

    def _columns(self, device, layer, before, x):
        """The input of each block under input tiling: its columns of the flattened channels."""
        for block in device.of(layer):
            weight = device.tensors[(block, "weight")]
            flat = x if weight.ndim == 4 else x.flatten(1)
            yield weight, flat[:, self.columns(block)]

    def _input_forward(self, layer, before):
        reducer = self.blocks(layer)[0].party
        for name in self.hosts(layer):
            device = self.devices[name]
            x = self.gather(name, before, "activation").requires_grad_()
            parts = [apply(w, None, part) for w, part in self._columns(device, layer, before, x)]
            device.memory[("x", layer)], device.memory[("part", layer)] = x, sum(parts)
            if name != reducer:
                units = tuple(range(self.channels[layer]))
                self.mail.send(
                    "partial_sum", name, reducer, layer, units, sum(parts), torch.arange(self.batch)
                )
        device, block = self.devices[reducer], self.blocks(layer)[0]
        total = device.memory[("part", layer)].detach()
        for message in self.mail.take(reducer, "partial_sum", layer):
            total = total + message.payload
        bias = device.tensors[(block, "bias")]
        total = total + bias.detach().reshape(-1, *[1] * (total.ndim - 2))
        total.requires_grad_()
        out = self.finish(layer, device.tensors[(block, "weight")], total)
        device.memory[("map", layer)], device.memory[("y", layer)] = total, out
        self._spread(reducer, layer, tuple(range(self.channels[layer])), out)

    def keep(self, name, layer, units, part, rows):
        kept = self.devices[name].memory.setdefault(("kept", layer), [])
        kept.append((tuple(units), part.detach(), rows))

    def _sum(self, name, layer):
        """The gradients of a layer's channels that reached a device, added up."""
        whole = self.zeros(layer)
        found = [(m.units, m.payload, m.rows) for m in self.mail.take(name, "gradient", layer)]
        for units, part, rows in [*self.devices[name].memory.get(("kept", layer), []), *found]:
            at = torch.tensor(units)
            whole[rows[:, None], at] = whole[rows[:, None], at] + part
        return whole

    def _output_back(self, layer, before):
        for name in self.hosts(layer):
            device = self.devices[name]
            gradient = self._sum(name, layer)
            x = device.memory[("x", layer)]
            flow = torch.zeros_like(x)
            for block in device.of(layer):
                wanted = [x, device.tensors[(block, "weight")], device.tensors[(block, "bias")]]
                out = device.memory[("y", block)]
                found = torch.autograd.grad(out, wanted, gradient[:, list(block.units)])
                flow = flow + found[0]
                device.add((block, "weight"), found[1])
                device.add((block, "bias"), found[2])
            self._return(name, before, tuple(range(self.channels[before])), flow)

    def _return(self, name, before, units, flow):
        """A consumer's gradient goes back to whoever made these channels."""
        if before == self.stem:
            for owner, rows in self.rows.items():
                part = flow[rows][:, list(units)]
                if owner != name:
                    self.mail.send("gradient", name, owner, before, units, part, rows)
                else:
                    self.keep(name, before, units, part, rows)
            return
        makers = self.blocks(before)
        if self.side == "input":
            makers = [Slice(makers[0].party, before, tuple(range(self.channels[before])))]
        everyone = torch.arange(self.batch)
        for block in makers:
            mine = tuple(unit for unit in block.units if unit in set(units))
            part = flow[:, list(mine)]
            if block.party != name and mine:
                self.mail.send("gradient", name, block.party, before, mine, part, everyone)
            elif mine:
                self.keep(name, before, mine, part, everyone)

    def _input_back(self, layer, before):
        block = self.blocks(layer)[0]
        reducer = self.devices[block.party]
        total = reducer.memory[("map", layer)]
        gradient = self._sum(reducer.name, layer)
        (delta,) = torch.autograd.grad(reducer.memory[("y", layer)], total, gradient)
        axes = [axis for axis in range(delta.ndim) if axis != 1]
        reducer.add((block, "bias"), delta.sum(axes))
        units = tuple(range(self.channels[layer]))
        for name in self.hosts(layer):
            device = self.devices[name]
            got = delta
            if name != reducer.name:
                everyone = torch.arange(self.batch)
                self.mail.send("gradient", reducer.name, name, layer, units, delta, everyone)
                (message,) = self.mail.take(name, "gradient", layer)
                got = message.payload
            x = device.memory[("x", layer)]
            blocks = device.of(layer)
            wanted = [x, *(device.tensors[(each, "weight")] for each in blocks)]
            found = torch.autograd.grad(device.memory[("part", layer)], wanted, got)
            for each, value in zip(blocks, found[1:], strict=True):
                device.add((each, "weight"), value)
            self._return(name, before, tuple(self.needs(name, layer, before)), found[0])

    def _stem_back(self):
        for name, rows in self.rows.items():
            device = self.devices[name]
            gradient = self._sum(name, self.stem)[rows]
            wanted = [device.public[f"{self.stem}.{p}"] for p in ("weight", "bias")]
            found = torch.autograd.grad(device.memory["stem"], wanted, gradient)
            self.to_coordinator("stem_gradient", name, self.stem, found, rows)

    def _bound(self):
        """Every host tells its squared norm, and is told by what to multiply."""
        total = self.coordinator.square()
        for name in self.topology.hosts():
            self.mail.send("norm", name, "coordinator", "", None, self.devices[name].square())
            (message,) = self.mail.take("coordinator", "norm", "")
            total = total + message.payload
        factor = torch.clamp(self.clip / (total.sqrt() + 1e-6), max=1.0)
        self.coordinator.scale(factor)
        for name in self.topology.hosts():
            self.mail.send("norm", "coordinator", name, "", None, factor)
            (message,) = self.mail.take(name, "norm", "")
            self.devices[name].scale(message.payload)

    def to_coordinator(self, kind, name, layer, gradients, rows):
        for part, gradient in zip(("weight", "bias"), gradients, strict=True):
            key = f"{layer}.{part}"
            if self.topology.min_owners is not None:
                self.summands.setdefault((kind, key), []).append((name, gradient, rows))
                continue
            self.mail.send(kind, name, "coordinator", key, None, gradient, rows)
            (message,) = self.mail.take("coordinator", kind, key)
            self.coordinator.add(key, message.payload.clone())  # clipped in place

    def _sum_masked(self):
        """Each two owners share a mask, which one adds and the other takes off."""
        for (kind, key), told in self.summands.items():
            hidden = [gradient.clone() for _, gradient, _ in told]
            for i, one in enumerate(hidden):
                for other in hidden[i + 1 :]:
                    mask = torch.rand(one.shape, dtype=one.dtype, generator=self.masks)
                    one += mask
                    other -= mask
            for (name, _, rows), masked in zip(told, hidden, strict=True):
                self.mail.hidden.append(
                    Message(
                        self.mail.step, "train", name, "coordinator", kind, key, None, masked, rows
                    )
                )
            everyone = torch.arange(self.batch)
            self.mail.send(kind, OWNERS, "coordinator", key, None, sum(hidden), everyone)
            (message,) = self.mail.take("coordinator", kind, key)
            self.coordinator.add(key, message.payload.clone())  # clipped in place
        self.summands = {}

    def collect(self):
        """The whole state, put together from what parties hand in."""
        state = {}
        for key, tensor in self.coordinator.tensors.items():
            self._slice("coordinator", key, None, tensor, False)
            state[key] = tensor.detach().clone()
        for layer in self.body:
            parts = []
            for block in self.blocks(layer):
                held = self.devices[block.party].tensors
                named = None if block.whole else block.units
                self._slice(block.party, f"{layer}.weight", named, held[(block, "weight")], False)
                parts.append((block, held[(block, "weight")].detach()))
                if (block, "bias") in held:
                    self._slice(block.party, f"{layer}.bias", named, held[(block, "bias")], False)
            axis = 0 if self.side == "output" else 1
            state[f"{layer}.weight"] = torch.cat([weight for _, weight in parts], dim=axis)
            biases = [
                self.devices[b.party].tensors[(b, "bias")].detach()
                for b in self.blocks(layer)
                if (b, "bias") in self.devices[b.party].tensors
            ]
            state[f"{layer}.bias"] = torch.cat(biases)
        return state
