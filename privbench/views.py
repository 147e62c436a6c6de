"""Cuts views from a transcript: what a seat saw, held and owned, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from privbench.contract import (
    Attack,
    Layer,
    Message,
    Own,
    Pairs,
    Public,
    Samples,
    Seat,
    Threat,
    Topology,
    View,
    Weights,
)
from privbench.wire.transcript import Transcript

Rows = Int64[Tensor, "n 2"]
BROADCASTS = ("global_weights", "stem_weights", "tail_weights")
SUMMED = ("stem_gradient", "tail_gradient", "stem_weights", "tail_weights")
"""Kinds that tell sums over owners, where these are added up under masks."""

RELEASER = "releaser"


@dataclass(frozen=True, eq=False)
class Facts:
    """What the harness adds to a seat's view, each asked for by the rows concerned.

    Args:
        public: everything that may be granted; a seat gets the fields of its grants.
        own: the samples behind rows that the seat owns.
        victims: which of the rows that a seat saw are to be attacked, given its owner numbers.
        pairs: answers of an activation oracle for some steps.
        notes: what an active attack wrote down while the model was trained.
        audited: what gradient canaries saw, for a seat at every step.
        device: where the attack computes.
    """

    public: Public
    own: Callable[[Rows], Samples]
    victims: Callable[[Rows, frozenset[int]], Rows]
    pairs: Callable[[Sequence[int]], tuple[Pairs, ...]]
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    audited: Mapping[str, Tensor] = field(default_factory=dict)
    device: str = "cpu"


def views_of(
    transcript: Transcript,
    topology: Topology,
    threat: Threat,
    seats: Iterable[Seat],
    attack: Attack,
    facts: Facts,
) -> list[View]:
    """One view a seat.

    Args:
        topology: the transcript's, as this run declares it (encryption is declared here).
        seats: those of ``threat`` that the attack can use.
        attack: the view holds messages of the kinds that it reads; victims are rows of those.
    """
    steps = threat.looks_at(transcript.steps, topology.steps_per_epoch)
    kinds = tuple(kind for kind in threat.kinds if kind in attack.reads)
    held = [step for step in steps if step in transcript.steps_with_state]
    states = {step: transcript.state(step) or {} for step in held}
    views = []
    for seat in seats:
        blinded = _blinded(seat, topology)
        seen = transcript.seen_by(seat, steps, () if blinded else kinds)
        messages = tuple(_naming_rows(message, transcript.owners) for message in seen)
        owned = owned_by(seat, topology)
        rows = rows_of(messages, attack.reads)
        known = {} if blinded else states
        taps = not blinded and (seat.everything or bool(seat.links))
        slices = transcript.seen_by(seat, held, ("slice_weights",) if taps else ())
        weights = [
            *_crossing(seat, topology, slices),
            *_weights(seat, topology, known, transcript.owners),
        ]
        views.append(
            View(
                seat=seat,
                topology=topology,
                victims=facts.victims(rows, owned),
                messages=messages,
                weights=tuple(sorted(weights, key=lambda each: each.step)),
                own=_own(seat, owned, steps, transcript, facts),
                pairs=facts.pairs(steps) if seat.pairs == "query" else (),
                notes={**facts.notes, **(facts.audited if "every_step" in seat.grants else {})},
                public=granted(seat, facts.public, attack),
                budget=threat.budget,
                device=facts.device,
            )
        )
    return views


def rows_of(messages: Iterable[Message], kinds: Sequence[str]) -> Rows:
    """Every row that these messages tell of, once, sorted by step and index.

    Weights that are broadcast tell of the rows of a step where those of the next step were seen too:
    the difference is what these rows added. A later broadcast does not do: who was sent none at the
    next step cannot tell whether it was skipped, or learned from by others.
    """
    chosen = [message for message in messages if message.kind in kinds and len(message.rows)]
    broadcast = {(m.kind, m.step) for m in chosen if m.kind in BROADCASTS}
    named = [
        torch.stack([torch.full_like(message.rows, message.step), message.rows], dim=1)
        for message in chosen
        if message.kind not in BROADCASTS or (message.kind, message.step + 1) in broadcast
    ]
    if not named:
        return torch.empty(0, 2, dtype=torch.int64)
    rows = torch.cat(named)
    keys = torch.unique((rows[:, 0] << 32) | rows[:, 1])
    return torch.stack([keys >> 32, keys & 0xFFFFFFFF], dim=1)


def owned_by(seat: Seat, topology: Topology) -> frozenset[int]:
    """Numbers, among the owners of samples, of those that the seat controls."""
    return frozenset(i for i, owner in enumerate(topology.owners) if owner in seat.parties)


def unprotected(views: Iterable[View], owners: Mapping[int, Tensor]) -> tuple[str, ...]:
    """Of which seats secure aggregation protects nobody, at how many steps that they learn sums of.

    A sum hides no more than the owners outside the seat: with fewer than ``min_owners`` of them it is
    scored, and told of, as unprotected.

    Args:
        owners: of each step, the number of each row's owner.

    Returns:
        a sentence for the seats with equal counts; none where all is protected, or nothing summed.
    """
    found: dict[tuple[int, int, int], list[str]] = {}
    for view in views:
        least = view.topology.min_owners
        if least is None or not view.seat.parties:
            continue
        own = owned_by(view.seat, view.topology)
        steps = {message.step for message in view.select(*SUMMED)}
        open_ = [step for step in steps if len(set(owners[step].tolist()) - own) < least]
        if open_:
            found.setdefault((len(open_), len(steps), least), []).append(view.seat.name)
    return tuple(
        f"unprotected: {count} of {of} steps for {', '.join(names)}: fewer than "
        f"regime.min_owners={least} owners of the sum are outside the seat"
        for (count, of, least), names in sorted(found.items(), reverse=True)
    )


def _naming_rows(message: Message, owners: Mapping[int, Tensor]) -> Message:
    """Broadcast weights name the rows that are computed with them: all of their step."""
    if message.kind not in BROADCASTS:
        return message
    return replace(message, rows=torch.arange(len(owners[message.step])))


def _blinded(seat: Seat, topology: Topology) -> bool:
    """An eavesdropper on an encrypted wire reads nothing."""
    return topology.encrypted and not seat.parties


def granted(seat: Seat, public: Public, attack: Attack) -> Public:
    """Public knowledge, by grant. Candidates hold the victims, so only who guesses bits gets them."""
    grants = seat.grants if attack.goal == "membership" else seat.grants - {"candidates"}
    return Public(
        candidates=public.candidates if "candidates" in grants else None,
        auxiliary=public.auxiliary if "auxiliary" in grants else None,
        recipe=public.recipe if "recipe" in grants else None,
        trainer=public.trainer if "recipe" in grants else None,
        net=public.net if grants & {"released_weights", "stale_weights"} else None,
    )


def _own(
    seat: Seat, owned: frozenset[int], steps: Sequence[int], transcript: Transcript, facts: Facts
) -> Own | None:
    if "own_samples" not in seat.grants or not owned:
        return None
    mine = torch.tensor(sorted(owned))
    found = []
    for step in steps:
        index = torch.isin(transcript.owners[step], mine).nonzero().flatten()
        found.append(torch.stack([torch.full_like(index, step), index], dim=1))
    rows = torch.cat(found) if found else torch.empty(0, 2, dtype=torch.int64)
    return Own(rows, facts.own(rows))


def _weights(
    seat: Seat,
    topology: Topology,
    states: dict[int, dict[str, Tensor]],
    owners: dict[int, Tensor],
) -> Iterable[Weights]:
    """The parameters that the seat's parties hold, step by step, oldest first."""
    owned = torch.tensor(sorted(owned_by(seat, topology)), dtype=torch.int64)
    for step, state in states.items():
        public = step == 0 and "initial_weights" in seat.grants
        if "model_weights" in seat.grants or public:
            yield Weights(step, "", None, state)
            continue
        took_part = bool(torch.isin(owners[step], owned).any())
        if took_part or seat.everything or "coordinator" in seat.parties:
            yield from _broadcast(topology, step, state)
        if "own_weights" in seat.grants:
            yield from _slices(seat, topology, step, state)


def _crossing(seat: Seat, topology: Topology, messages: Iterable[Message]) -> Iterator[Weights]:
    """Slices that pass by a tap: whoever reads them knows them.

    What goes to the releaser, or from one replica to another, is sent when a step is over and in force
    in the next. What a seat's own parties are sent is among what they hold.
    """
    layers = {name: layer for layer in topology.layers for name in layer.parameters}
    sent: Counter[tuple[object, ...]] = Counter()
    for message in messages:
        ends, layer = (message.sender, message.receiver), layers.get(message.layer)
        if layer is None or set(ends) & set(seat.parties):
            continue
        replicas = {topology.replica(end) for end in ends}
        over = ends[1] == RELEASER or (ends[0] != RELEASER and len(replicas) > 1)
        key = (message.step, ends, message.layer, message.units)
        columns = _columns(topology, message, layer, sent[key])
        sent[key] += 1
        held = {message.layer: message.payload}
        yield Weights(message.step + over, layer.name, message.units, held, columns)


def _columns(
    topology: Topology, message: Message, layer: Layer, number: int
) -> tuple[int, ...] | None:
    """Of the slice that a message is part of: the ``number``-th that may be meant; None = all."""
    if message.units is None or message.payload.ndim < 2:
        return None
    ends = {message.sender, message.receiver}
    ends |= {h.home for h in topology.handovers if {h.sender, h.receiver} == ends}
    homes = zip(topology.slices, topology.slices_at(message.step), strict=True)
    meant = [
        home.columns
        for home, piece in homes
        if home.layer == layer.name
        and home.units == message.units
        and {home.party, piece.party} & ends
    ]
    return meant[min(number, len(meant) - 1)] if meant else None


def _broadcast(topology: Topology, step: int, state: dict[str, Tensor]) -> Iterable[Weights]:
    """Stem and tail, as the owners of a batch receive them."""
    for layer in topology.layers:
        if layer.place in ("stem", "tail") and "coordinator" in topology.parties:
            yield Weights(step, layer.name, None, {name: state[name] for name in layer.parameters})


def _slices(
    seat: Seat, topology: Topology, step: int, state: dict[str, Tensor]
) -> Iterable[Weights]:
    """The rows and columns of each layer that the seat hosts, or is sent a copy of."""
    copied = {
        each.home
        for each in topology.handovers
        if each.reason == "copy" and each.step == step and each.receiver in seat.parties
    }
    for home, piece in zip(topology.slices, topology.slices_at(step), strict=True):
        if piece.party not in seat.parties and home.party not in copied:
            continue
        own = {n: topology.name_at(n, piece.party) for n in topology.layer(piece.layer).parameters}
        parts = {name: piece.part(state.get(own[name], state[name])) for name in own}
        held = {name: part for name, part in parts.items() if part is not None}
        units = None if piece.whole else piece.units
        yield Weights(step, piece.layer, units, held, piece.columns)
