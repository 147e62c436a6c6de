"""Which seats of a threat an attack can use, and one sentence for each that it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from privbench.contract import Attack, Seat, Topology, View, child_rng
from privbench.data.splits import Opened
from privbench.errors import NotApplicable, UsageError
from privbench.plan import Plan
from privbench.report.report import Refusal

NOBODY = "no victim crossed what it saw, at the steps that it looks at (threat.steps)"


def seats_of(
    plan: Plan, topology: Topology, opened: Opened
) -> tuple[tuple[Seat, ...], tuple[Refusal, ...]]:
    """The seats that the plan's attack can use, and a refusal for each reason why others cannot.

    Raises:
        NotApplicable: an active attack under a threat that only listens.
        UsageError: the seat that is asked for does not exist.
    """
    threat, attack = plan.threat, plan.attack
    if attack.actor is not None and not threat.tampers:
        raise NotApplicable(
            f"attack={plan.names.attack} is active, threat={plan.names.threat} only listens; "
            "choose a threat that tampers"
        )
    topology = replace(topology, encrypted=plan.encrypted)
    seats = _chosen(plan, threat.seats(topology))
    if not seats:
        reason = f"regime={topology.regime} has no seat for threat={threat.name}"
        return (), (Refusal(reason + _instead(plan, topology, opened), 0),)
    able = []
    refused: dict[tuple[str, str], int] = {}
    for seat in seats:
        seat = _within(seat, opened)
        reason = why_not(attack, seat, threat.kinds, plan.encrypted)
        if reason:
            refused[reason, seat.column] = refused.get((reason, seat.column), 0) + 1
        else:
            able.append(seat)
    instead = "" if able else _instead(plan, topology, opened)
    refusals = [Refusal(why + instead, count, column) for (why, column), count in refused.items()]
    return tuple(able), tuple(refusals)


def with_victims(
    attack: Attack, views: Sequence[View]
) -> tuple[tuple[View, ...], tuple[Refusal, ...]]:
    """The views that hold somebody to attack, and refusals that count the others.

    A seat that could attack and saw no row of anybody else has measured nothing: no score is its.
    """
    if attack.goal != "reconstruction":
        return tuple(views), ()
    idle: dict[str, int] = {}
    for view in views:
        if not len(view.victims):
            idle[view.seat.column] = idle.get(view.seat.column, 0) + 1
    refusals = tuple(Refusal(NOBODY, count, column) for column, count in idle.items())
    return tuple(view for view in views if len(view.victims)), refusals


def why_not(attack: Attack, seat: Seat, kinds: Sequence[str], encrypted: bool = False) -> str:
    """One sentence that says what the seat lacks; empty if it has all that the attack needs."""
    if attack.reads and encrypted and not seat.parties:
        return "the wire is encrypted: whoever taps links sees sizes and times only"
    if attack.reads and not set(attack.reads) & set(kinds):
        seen = ", ".join(kinds) or "no traffic"
        return f"it reads {' or '.join(attack.reads)}, and this seat sees {seen}"
    for need in attack.needs:
        if need == "pairs":
            if seat.pairs == "none":
                return "it needs pairs of input and activation, and this seat has no way to get any"
        elif not set(need.split("|")) & seat.grants:
            wanted = " or ".join(need.split("|")).replace("_", " ")
            return f"it needs {wanted}, which this seat does not have"
    return ""


def _instead(plan: Plan, topology: Topology, opened: Opened) -> str:
    """The rest of the sentence: which threats would do for this attack, in this regime."""
    fit = [
        name
        for name, threat in plan.others().items()
        if any(
            not why_not(plan.attack, _within(seat, opened), threat.kinds, plan.encrypted)
            for seat in threat.seats(topology)
        )
    ]
    if not fit:
        return ""
    return f"; here it can be run with threat={' or threat='.join(fit)}"


def _within(seat: Seat, opened: Opened) -> Seat:
    """The seat, without grants that this split of the data cannot give."""
    missing = set()
    if opened.candidates is None:
        missing.add("candidates")
    if opened.population.auxiliary is None:
        missing.add("auxiliary")
    pairs = "none" if seat.pairs in ("prefix", "query") and "auxiliary" in missing else seat.pairs
    return replace(seat, grants=seat.grants - missing, pairs=pairs)


def _chosen(plan: Plan, seats: tuple[Seat, ...]) -> tuple[Seat, ...]:
    """All seats, one by its number, or a random sample."""
    threat = plan.threat
    if threat.seat is not None and seats:
        if not 0 <= threat.seat < len(seats):
            raise UsageError(
                f"threat.seat={threat.seat}: threat={threat.name} has seats 0 to {len(seats) - 1}"
            )
        return (seats[threat.seat],)
    if threat.sample is not None and threat.sample < len(seats):
        rng = child_rng(torch.Generator().manual_seed(plan.seed), "seats")
        drawn = torch.randperm(len(seats), generator=rng)[: threat.sample].sort().values
        return tuple(seats[i] for i in drawn.tolist())
    return seats
