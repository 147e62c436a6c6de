"""What an attack is given: the view of one seat, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    """Rows of one layer put together over steps and senders: ``payload[i]`` belongs to ``rows[i]``."""

    layer: str
    units: tuple[int, ...]
    rows: Int64[Tensor, "n 2"]  # (step, index), sorted
    payload: Float[Tensor, "n ..."]


@dataclass(frozen=True, eq=False)
class View:
    """All that one seat knows. Decoded from bytes: nothing in it is shared with the harness.

    Args:
        victims: the rows to attack, ``(n, 2)`` of (step, index); handles, not samples.
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


def block(messages: Iterable[Message], layer: Layer, kind: str) -> Block:
    """All that a seat saw of one layer, as one matrix.

    Copies of the same block on several links count once. Rows of which a unit is missing are left
    out. Units are in rising order; rows are sorted by step and index.

    Args:
        messages: of one or many steps.
        layer: the layer whose output (``activation``) or gradient is meant.
        kind: ``activation``, ``partial_sum`` or ``gradient``.
    """
    chosen = [m for m in messages if m.kind == kind and m.layer == layer.name]
    everything = tuple(range(layer.channels))
    units = tuple(sorted({u for m in chosen for u in (m.units or everything)}))
    steps = sorted({m.step for m in chosen})
    rows, payloads = [], []
    for step in steps:
        found = _assemble([m for m in chosen if m.step == step], units, everything)
        index, payload = found
        rows.append(torch.stack([torch.full_like(index, step), index], dim=1))
        payloads.append(payload)
    if not rows:
        shape = (0, 0, *layer.shape[1:])
        return Block(layer.name, (), torch.empty(0, 2, dtype=torch.int64), torch.empty(shape))
    return Block(layer.name, units, torch.cat(rows), torch.cat(payloads))


def _assemble(
    messages: list[Message], units: tuple[int, ...], everything: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Row indices of one step with every unit present, and their ``(n, units, *)`` payload."""
    size = 1 + max((int(m.rows.max()) for m in messages if len(m.rows)), default=-1)
    place = {unit: i for i, unit in enumerate(units)}
    whole = torch.zeros(size, len(units), *messages[0].payload.shape[2:])
    seen = torch.zeros(size, len(units), dtype=torch.bool)
    for message in messages:
        columns = torch.tensor([place[u] for u in (message.units or everything)])
        whole[message.rows[:, None], columns] = message.payload.to(whole.dtype)
        seen[message.rows[:, None], columns] = True
    index = seen.all(dim=1).nonzero().flatten()
    return index, whole[index]
