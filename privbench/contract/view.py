"""What an attack is given: the view of one seat, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from privbench.contract.message import Message
from privbench.contract.recipe import Net, Recipe, Samples
from privbench.contract.threat import Budget, Seat
from privbench.contract.topology import Layer, Topology


@dataclass(frozen=True, eq=False)
class Weights:
    """Parameters that the seat held at one step: a layer's tensors, or the rows of its units."""

    step: int
    layer: str  # name of the layer; "" = the whole network
    units: tuple[int, ...] | None  # None = all
    tensors: Mapping[str, Tensor]  # by name in the state dict
    columns: tuple[int, ...] | None = None  # of the weight's second axis that it held; None = all


@dataclass(frozen=True, eq=False)
class Own:
    """The seat's own samples, and the rows in which they crossed: ``rows[i]`` held ``samples[i]``."""

    rows: Int64[Tensor, "n 2"]  # (step, index)
    samples: Samples


@dataclass(frozen=True, eq=False)
class Pairs:
    """Inputs with the activation they give at one step, asked of an oracle (``pairs=query``)."""

    step: int
    layer: str
    x: Float[Tensor, "n ..."]
    activation: Float[Tensor, "n ..."]


@dataclass(frozen=True, eq=False)
class Public:
    """Knowledge that does not come from traffic; each field None unless the seat is granted it.

    Args:
        candidates: records, half of them members, shuffled, with labels.
        auxiliary: labelled records of the same distribution, neither member nor candidate.
        recipe: how the target was trained, all but records and seed.
        trainer: import name of the function that trains by a recipe.
        net: released weights (for ``stale_weights`` too).
    """

    candidates: Samples | None = None
    auxiliary: Samples | None = None
    recipe: Recipe | None = None
    trainer: str | None = None
    net: Net | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit learned: tensors, and plain facts about it."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


Oracle = Callable[[Tensor], Tensor]
"""``(n, *shape)`` inputs to ``(n, classes)`` probabilities or ``(n,)`` labels.

Answered by the harness and counted; raises AttackError once the budget is spent.
"""


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of which a seat saw these units, put together over steps and senders.

    ``payload[i]`` belongs to ``rows[i]``.
    """

    layer: str
    units: tuple[int, ...]
    rows: Int64[Tensor, "n 2"]  # (step, index), sorted
    payload: Float[Tensor, "n ..."]


@dataclass(frozen=True, eq=False)
class View:
    """All that one seat knows. Decoded from bytes: nothing in it is shared with the harness.

    Args:
        victims: the rows to attack, ``(n, 2)`` of (step, index); handles, not samples. Where recurrence is
            asked, pair after pair: the rows 2i and 2i + 1 are of two epochs.
        messages: what it saw, in order of sending.
        weights: parameters it held at the steps it saw.
        own: its own samples, None where it has none.
        pairs: answers of an activation oracle (upper bounds only), else empty.
        notes: what an active attacker wrote down during training.
        fitted: results of ``attack.fits()``, in that order.
        device: where the attack may compute.
    """

    seat: Seat
    topology: Topology
    victims: Int64[Tensor, "n 2"]
    messages: tuple[Message, ...] = ()
    weights: tuple[Weights, ...] = ()
    own: Own | None = None
    pairs: tuple[Pairs, ...] = ()
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    public: Public = field(default_factory=Public)
    oracle: Oracle | None = None
    fitted: tuple[Fitted, ...] = ()
    budget: Budget = field(default_factory=Budget)
    device: str = "cpu"

    def select(self, *kinds: str) -> tuple[Message, ...]:
        """The messages of these kinds."""
        return tuple(message for message in self.messages if message.kind in kinds)

    def steps(self) -> tuple[int, ...]:
        """Steps of which the view holds messages."""
        return tuple(sorted({message.step for message in self.messages}))


def blocks(messages: Iterable[Message], layer: Layer, kind: str) -> tuple[Block, ...]:
    """All that a seat saw of one layer: a matrix for each set of units that it saw of some rows.

    Each row is in one of them, with every unit that was seen of it: hosts of several replicas see
    other units of other rows, and whoever takes over a slice sees more than before. Copies of the same
    block on several links count once. Units are in rising order; rows are sorted by step and index.

    Args:
        messages: of one or many steps.
        layer: the layer whose output (``activation``) or gradient is meant.
        kind: ``activation``, ``partial_sum`` or ``gradient``.

    Returns:
        the largest set of units first; empty where nothing was seen.
    """
    everything = tuple(range(layer.channels))
    of_step: dict[int, list[Message]] = {}
    for message in messages:
        if message.kind == kind and message.layer == layer.name and len(message.rows):
            of_step.setdefault(message.step, []).append(message)
    found: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for step in sorted(of_step):
        for units, index, payload in _assembled(of_step[step], everything):
            rows = torch.stack([torch.full_like(index, step), index], dim=1)
            found.setdefault(units, []).append((rows, payload))
    return tuple(
        Block(layer.name, units, *(torch.cat(parts) for parts in zip(*found[units], strict=True)))
        for units in sorted(found, key=lambda units: (-len(units), units))
    )


def _assembled(
    messages: Sequence[Message], everything: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], Tensor, Tensor]]:
    """Sets of units seen of rows of one step, these rows, and their ``(n, units, *)`` payload."""
    units = sorted({u for m in messages for u in (m.units or everything)})
    size = 1 + max(int(m.rows.max()) for m in messages)
    place = {unit: i for i, unit in enumerate(units)}
    whole = torch.zeros(size, len(units), *messages[0].payload.shape[2:])
    seen = torch.zeros(size, len(units), dtype=torch.bool)
    for message in messages:
        columns = torch.tensor([place[u] for u in (message.units or everything)])
        whole[message.rows[:, None], columns] = message.payload.to(whole.dtype)
        seen[message.rows[:, None], columns] = True
    index = seen.any(dim=1).nonzero().flatten()
    if bool(seen[index].all()):
        yield tuple(units), index, whole[index]
        return
    patterns, number = torch.unique(seen[index], dim=0, return_inverse=True)
    for n, pattern in enumerate(patterns):
        held, rows = pattern.nonzero().flatten(), index[number == n]
        yield tuple(units[i] for i in held.tolist()), rows, whole[rows[:, None], held]
