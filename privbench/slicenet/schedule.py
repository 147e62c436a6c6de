"""What is sent in each phase of a step, known to everyone in advance: envelopes without contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import Message, Party, Slice, Topology, no_rows
from privbench.slicenet.graph import Graph, held_by, parameters_of
from privbench.slicenet.links import OWNER, Links
from privbench.slicenet.parcels import COORDINATOR, RELEASER


@dataclass(frozen=True, eq=False)
class Envelope:
    """A message that is going to be sent.

    Args:
        kind, sender, receiver, layer, units, rows: of the message.
        shape: of its payload.
        from_owner, to_owner: does the party act as an owner of rows, not as a host?
        piece: number of the tile whose tensor it carries; None = none.
        whole_numbers: does it carry labels? They are 64-bit numbers, whatever the arithmetic.
    """

    kind: str
    sender: Party
    receiver: Party
    layer: str
    units: tuple[int, ...] | None
    rows: Int64[Tensor, " n"]
    shape: tuple[int, ...]
    from_owner: bool = False
    to_owner: bool = False
    piece: int | None = None
    whole_numbers: bool = False

    def message(self, step: int, payload: Tensor) -> Message:
        """The same with its contents."""
        return Message(
            step, "train", self.sender, self.receiver, self.kind, self.layer, self.units, payload,
            self.rows,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A tensor of which a party holds all or a tile's part.

    Args:
        party: the host, or the coordinator.
        name: of the tensor in the state dict.
        units: of the tile; None = it holds all of it.
        shape: of the part.
        piece: number of the tile in ``Topology.slices``; None = of stem or tail.
        moves: does it pass between the releaser and the party? Counters do not.
    """

    party: Party
    name: str
    units: tuple[int, ...] | None
    shape: tuple[int, ...]
    piece: int | None = None
    moves: bool = True


class Schedule:
    """Every process derives the same envelopes, in the same order, from what is public.

    Args:
        topology: with layers and slices.
        graph: of a network that still has its tensors.
    """

    def __init__(self, topology: Topology, graph: Graph) -> None:
        self.topology = topology
        links = Links(topology.layers, topology.slices)
        self._layers = links.layers
        self.last, self.scorer = links.last, links.scorer
        self._links = {layer.name: tuple(links.links(layer.name)) for layer in links.travelling}
        self._sums = {layer.name: links.sums(layer.name) for layer in topology.layers}
        owned = {place: parameters_of(graph.placed(place)) for place in ("stem", "tail")}
        self._owned = {
            place: {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            for place, tensors in owned.items()
        }
        self.parts = tuple(_parts(topology.slices, graph, owned))
        self.stem = tuple(s.name for s in links.travelling if s.place == "stem")
        self.body = tuple(s.layer.name for s in graph.placed("body"))
        self._exits = {name for stage in graph.placed("tail") for name in stage.layer.inputs}
        self._groups: dict[Party, Int64[Tensor, " _n"]] = {}
        self._rows = no_rows()

    def begin(self, owners: Int64[Tensor, " rows"]) -> None:
        """A step starts; number of each row's owner."""
        self._rows = torch.arange(len(owners))
        self._groups = {
            self.topology.owners[k]: (owners == k).nonzero().flatten()
            for k in owners.unique().tolist()
        }

    @property
    def groups(self) -> dict[Party, Int64[Tensor, " _n"]]:
        """Owners of this step's batch, with their rows."""
        return self._groups

    @property
    def batch(self) -> int:
        """Rows of this step."""
        return len(self._rows)

    def owned(self, place: str) -> tuple[str, ...]:
        """Names of the tensors of stem or tail that are learned."""
        return tuple(self._owned[place])

    def feeds_tail(self, layer: str) -> bool:
        """Do owners need a layer of the body?"""
        return layer in self._exits

    def handed_out(self) -> list[Envelope]:
        """Slices, and stem and tail, from the releaser."""
        return [self._slice(part, RELEASER, part.party) for part in self.parts if part.moves]

    def handed_in(self) -> list[Envelope]:
        """The same back to the releaser."""
        return [self._slice(part, part.party, RELEASER) for part in self.parts if part.moves]

    def broadcasts(self, place: str) -> list[Envelope]:
        """Stem or tail, from the coordinator to the owners of the batch."""
        return [
            Envelope(f"{place}_weights", COORDINATOR, owner, name, None, no_rows(), shape)
            for name, shape in self._owned[place].items()
            for owner in self._groups
        ]

    def owner_gradients(self, place: str) -> list[Envelope]:
        """Gradients of stem or tail, from the owners of the batch to the coordinator."""
        return [
            Envelope(f"{place}_gradient", owner, COORDINATOR, name, None, rows, shape)
            for owner, rows in self._groups.items()
            for name, shape in self._owned[place].items()
        ]

    def activations(self, layer: str) -> list[Envelope]:
        """A layer's channels, along its links."""
        return list(self._along(layer, "activation"))

    def gradients(self, layer: str) -> list[Envelope]:
        """Gradients of a layer's channels, back along the same links."""
        return list(self._along(layer, "gradient"))

    def labels(self) -> list[Envelope]:
        """Labels of each owner's rows, to whoever computes the loss; none where owners do."""
        if self.scorer is None:
            return []
        return [
            Envelope(
                "labels", owner, self.scorer, self.last, None, rows, (len(rows),), from_owner=True,
                whole_numbers=True,
            )
            for owner, rows in self._groups.items()
            if owner != self.scorer
        ]  # fmt: skip

    def partial_sums(self, layer: str) -> list[Envelope]:
        """What other hosts of a block add to it, to its reducer."""
        return [
            self._sum("partial_sum", layer, other, each.reducer, each.units)
            for each in self._sums[layer]
            for other in each.others
        ]

    def sum_gradients(self, layer: str) -> list[Envelope]:
        """The gradient of a block's sum, back to them."""
        return [
            self._sum("gradient", layer, each.reducer, other, each.units)
            for each in self._sums[layer]
            for other in each.others
        ]

    def norms(self) -> list[Envelope]:
        """Squared norm of each host's part of the gradient, to the coordinator."""
        return [self._number(host, COORDINATOR) for host in self.topology.hosts()]

    def factors(self) -> list[Envelope]:
        """What each host is to multiply its part by, back from the coordinator."""
        return [self._number(COORDINATOR, host) for host in self.topology.hosts()]

    def _number(self, sender: Party, receiver: Party) -> Envelope:
        return Envelope("norm", sender, receiver, "", None, no_rows(), (1,))

    def _slice(self, part: Part, sender: Party, receiver: Party) -> Envelope:
        return Envelope(
            "slice_weights", sender, receiver, part.name, part.units, no_rows(), part.shape,
            piece=part.piece,
        )  # fmt: skip

    def _sum(
        self, kind: str, layer: str, sender: Party, receiver: Party, units: tuple[int, ...]
    ) -> Envelope:
        shape = (self.batch, len(units), *self._layers[layer].map_shape[1:])
        return Envelope(kind, sender, receiver, layer, units, self._rows, shape)

    def _along(self, layer: str, kind: str) -> Iterator[Envelope]:
        channels, inner = self._layers[layer].channels, self._layers[layer].shape[1:]
        everyone = {"": self._rows}
        for link in self._links.get(layer, ()):
            units = tuple(range(channels)) if link.units is None else link.units
            makes, needs = link.sender == OWNER, link.receiver == OWNER
            for owner, rows in (self._groups if makes or needs else everyone).items():
                maker = owner if makes else link.sender
                user = owner if needs else link.receiver
                if maker == user:
                    continue
                forward = kind == "activation"
                yield Envelope(
                    kind,
                    maker if forward else user,
                    user if forward else maker,
                    layer,
                    units,
                    rows,
                    (len(rows), len(units), *inner),
                    makes if forward else needs,
                    needs if forward else makes,
                )


def _parts(
    slices: Sequence[Slice], graph: Graph, owned: dict[str, dict[str, Tensor]]
) -> Iterator[Part]:
    for tensors in owned.values():
        for name, tensor in tensors.items():
            yield Part(COORDINATOR, name, None, tuple(tensor.shape))
    for each in held_by(slices, graph.stages):
        shape, moves = tuple(each.part.shape), each.part.is_floating_point()
        yield Part(each.piece.party, each.name, each.units, shape, each.number, moves)
