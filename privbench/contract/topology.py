"""Who takes part in training, and how the network is cut among them: what is public about a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from privbench.contract.cost import Bill, Volume
from privbench.contract.losses import Handover, Losses
from privbench.contract.message import Party
from privbench.contract.recipe import Net, Spec


@dataclass(frozen=True)
class Layer:
    """A layer of the network as the crowd slices it; common knowledge.

    Args:
        name: name of the splittable module (``net.2``), also the ``layer`` of its messages.
        cut: node of the traced network whose value travels (the output after the per-channel
            operations that follow the layer).
        place: ``stem``, ``body`` or ``tail``.
        channels: number of output channels (units).
        shape: shape of what travels for one sample, channels first.
        parameters: names of its tensors in the state dict.
        inputs: names of the layers that feed it; empty for the first.
        map_shape: shape of its partial sums for one sample, before the operations behind it.
    """

    name: str
    cut: str
    place: str
    channels: int
    shape: tuple[int, ...]
    parameters: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    map_shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Need:
    """Channels of one layer that a slice works on; ``units`` None = all of them."""

    layer: str
    units: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Slice:
    """A part of a layer and its host.

    Args:
        party: the host.
        layer: of which it is a part.
        units: output channels that it computes, or to which it adds a partial sum.
        columns: second-axis indices of the layer's weight that it holds; None = all of them.
        needs: what must reach it; a party needs the union over its slices, once.
        reduces: does it finish these units: add up partial sums, add the bias, apply what follows?
        whole: does it hold all of the layer?
    """

    party: Party
    layer: str
    units: tuple[int, ...]
    columns: tuple[int, ...] | None = None
    needs: tuple[Need, ...] = ()
    reduces: bool = True
    whole: bool = False

    def part(self, tensor: Tensor) -> Tensor | None:
        """What it holds of one of the layer's tensors (weight, bias, of a norm); None = nothing.

        Rows of a tensor belong to output channels; only the layer's weight has columns.
        """
        common = tensor.ndim < 2 and tensor.numel() == 1  # one number for all channels
        if self.whole or (common and self.reduces):
            return tensor
        if tensor.ndim < 2:
            return tensor[list(self.units)] if tensor.ndim and self.reduces else None
        rows = tensor[list(self.units)]
        return rows if self.columns is None else rows[:, list(self.columns)]


@dataclass(frozen=True)
class Load:
    """What a device spends in one step at most, beside what it has."""

    party: Party
    flops: float  # FLOP a step
    flops_budget: float
    memory: float  # bytes
    memory_budget: float


@dataclass(frozen=True)
class Traffic:
    """Bytes of activations, partial sums and gradients between two parties, both ways together.

    ``nbytes`` is the mean per training sample, without headers.
    """

    one: Party
    other: Party
    nbytes: float


@dataclass(frozen=True)
class Topology:
    """Who takes part and what is public about it.

    Args:
        regime: name of the regime.
        parties: everyone on the wire.
        owners: those that hold private samples.
        net: the architecture, without weights.
        layers: in order of the forward pass (SliceNet and split; else empty).
        slices: who hosts what; under faults, before any device fails.
        steps: number of training steps; ``steps_per_epoch`` of them make one pass.
        encrypted: link taps see sizes and times only.
        defenses: message defenses in force, in order; an adaptive attacker knows them.
        loads: what each device spends, where devices have budgets.
        traffic: what crosses between each two devices, where a crowd trains.
        bills: what a step costs the crowd, here and under the regimes that this one is compared with.
        volumes: what this slicer and others make of the slicing problem.
        replicas: devices of each replica of the network, disjoint; empty where there is one alone.
        handovers: slices that went from one device to another, in order of time.
        losses: what faults cost; None = none were asked for, or training is not over.
        labels: where a crowd's loss is computed: ``tail`` or ``logits``, by the owner of each row;
            ``shared``, by the host of the last layer, whom owners send labels. Empty elsewhere.
        min_owners: owners that a sum of stem or tail gradients has at least, under secure aggregation:
            the coordinator gets one message a tensor, from ``OWNERS``. None = each owner's, plain.
    """

    regime: str
    parties: tuple[Party, ...]
    owners: tuple[Party, ...]
    net: Net
    steps: int
    steps_per_epoch: int
    layers: tuple[Layer, ...] = ()
    slices: tuple[Slice, ...] = ()
    encrypted: bool = False
    defenses: tuple[Spec, ...] = ()
    loads: tuple[Load, ...] = ()
    traffic: tuple[Traffic, ...] = ()
    bills: tuple[Bill, ...] = ()
    volumes: tuple[Volume, ...] = ()
    replicas: tuple[tuple[Party, ...], ...] = ()
    handovers: tuple[Handover, ...] = ()
    losses: Losses | None = None
    labels: str = ""
    min_owners: int | None = None

    def replica(self, party: Party) -> int:
        """Number of the replica that a party belongs to; 0 for one that belongs to none."""
        return next((n for n, group in enumerate(self.replicas) if party in group), 0)

    def name_at(self, name: str, party: Party) -> str:
        """What a tensor of a party's replica is called among the parameters in force.

        Those of the first replica have the names of the network; others are there too where they differ.
        """
        number = self.replica(party)
        return f"{name}@{number}" if number else name

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)

    def hosts(self) -> tuple[Party, ...]:
        """Parties that host a part of the body, if only for a time, in order."""
        hosting = {piece.party for piece in self.slices} | {each.receiver for each in self._moves()}
        return tuple(party for party in self.parties if party in hosting)

    def hosted(self, party: Party) -> tuple[str, ...]:
        """Names of the layers of which ``party`` hosts units, if only for a time, shallowest first."""
        homes = {party} | {each.home for each in self._moves() if each.receiver == party}
        mine = {piece.layer for piece in self.slices if piece.party in homes}
        return tuple(layer.name for layer in self.layers if layer.name in mine)

    def changes(self) -> tuple[int, ...]:
        """Steps at whose beginning slices go to other hosts, each once, in order."""
        return tuple(dict.fromkeys(each.step for each in self._moves()))

    def slices_at(self, step: int) -> tuple[Slice, ...]:
        """Who hosts what in a step; whoever is away keeps what it hosted last."""
        host = {each.home: each.receiver for each in self._moves() if each.step <= step}
        if not host:
            return self.slices
        return tuple(
            replace(piece, party=host[piece.party]) if piece.party in host else piece
            for piece in self.slices
        )

    def _moves(self) -> Iterator[Handover]:
        return (each for each in self.handovers if each.reason != "copy")
