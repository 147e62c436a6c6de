"""Which seats of a threat an attack can use, and one sentence for each that it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from privbench.contract import Attack, Seat, Threat, Topology, View, check_words, child_rng
from privbench.data.splits import Opened
from privbench.errors import NotApplicable, UsageError
from privbench.plan import Plan
from privbench.report.report import Refusal
from privbench.threats.sketches import SKETCHES, carried
from privbench.threats.ways import Able, instead
from privbench.views import owned_by

OF_ROWS = ("reconstruction", "label", "recurrence")
"""Goals that are guesses about rows, so that a view without victims leaves nothing to guess."""
NOBODY = "no victim crossed what it saw, at the steps that it looks at (threat.steps)"
NO_PAIR = (
    "no victim crossed what it saw in two epochs, at the steps that it looks at; type threat.steps=all, and "
    "train for two epochs or more (regime.epochs)"
)
NOBODY_ELSE = (
    "every owner of records is inside this threat, so that nobody is left to attack; choose more "
    "devices or clients (crowd.devices, regime.clients), or fewer of them (threat.fraction)"
)


def seats_of(
    plan: Plan, topology: Topology, opened: Opened
) -> tuple[tuple[Seat, ...], tuple[Refusal, ...]]:
    """The seats that the plan's attack can use, and a refusal for each reason why others cannot.

    Raises:
        UsageError: the seat that is asked for does not exist.
        PluginError: the attack needs what the contract has no word for.
    """
    threat, attack = plan.threat, plan.attack
    check_words(attack)
    reason = (
        _passive(plan, topology, opened)
        or without_effect(plan, topology.regime)
        or _unjudged(plan, opened)
    )
    if reason:
        return (), (Refusal(reason, 0),)
    topology = replace(topology, encrypted=plan.encrypted)
    every = threat.seats(topology)
    seats = _chosen(plan, every)
    if not seats:
        reason = f"regime={topology.regime} has no seat for threat={plan.names.threat}"
        return (), (Refusal(reason + _instead(plan, topology, opened), 0),)
    able = []
    refused: dict[tuple[str, str], int] = {}
    for seat in seats:
        reason = _why_not(plan, topology, opened, seat)
        if reason:
            refused[reason, seat.column] = refused.get((reason, seat.column), 0) + 1
        else:
            able.append(_within(seat, opened))
    rest = "" if able else _instead(plan, topology, opened)
    refusals = [Refusal(why + rest, count, column) for (why, column), count in refused.items()]
    if threat.seat is None and len(seats) < len(every):
        drawn = f"not attacked: threat.sample={threat.sample} drew {len(seats)} of {len(every)} at random"
        refusals.append(Refusal(drawn, len(every) - len(seats), every[0].column))
    if plan.acts and len(able) > 1:
        alone = f"not attacked: one seat acts, here {able[0].name}; threat.seat=... chooses another"
        refusals.append(Refusal(alone, len(able) - 1, able[0].column))
        able = able[:1]
    return tuple(able), tuple(refusals)


def active_seat(plan: Plan, topology: Topology, opened: Opened) -> Seat:
    """The one seat from which the plan's attack acts while the model is trained.

    Raises:
        NotApplicable: there is none.
    """
    seats, refusals = seats_of(plan, topology, opened)
    if not seats:
        raise NotApplicable(refusals[0].reason)
    return seats[0]


def without_effect(plan: Plan, regime: str) -> str:
    """One sentence about a message defense that finds nothing to change; empty if all find something.

    Args:
        regime: name of the regime's class, as its topology gives it.
    """
    if regime not in SKETCHES:
        return ""
    sent = SKETCHES[regime].kinds
    for defense in plan.defenses:
        if not defense.double and not set(defense.kinds) & set(sent):
            homes = [f"regime={name}" for name in SKETCHES if carried(name, defense.kinds)]
            return (
                f"{type(defense).__name__} changes {' and '.join(defense.kinds)}, and "
                f"regime={regime} sends {', '.join(sent) or 'nothing'}: it would defend nothing; "
                f"type defense=[]{', or choose ' if homes else ''}{' or '.join(homes)}"
            )
    return ""


def with_victims(
    attack: Attack, views: Sequence[View]
) -> tuple[tuple[View, ...], tuple[Refusal, ...]]:
    """The views that hold somebody to attack, and refusals that count the others.

    A seat that could attack and saw no row of anybody else, or owns every record, has measured nothing:
    no score is its.
    """
    able = []
    idle: dict[tuple[str, str], int] = {}
    for view in views:
        reason = _nobody(attack, view)
        if reason:
            idle[reason, view.seat.column] = idle.get((reason, view.seat.column), 0) + 1
        else:
            able.append(view)
    refusals = tuple(Refusal(reason, count, column) for (reason, column), count in idle.items())
    return tuple(able), refusals


def _nobody(attack: Attack, view: View) -> str:
    """One sentence where the view holds nobody to attack; empty if it does."""
    if attack.goal not in (*OF_ROWS, "membership") or (
        len(view.victims) and attack.goal in OF_ROWS
    ):
        return ""
    owners = view.topology.owners
    if owners and len(owned_by(view.seat, view.topology)) == len(owners):
        return NOBODY_ELSE
    if attack.goal == "membership":
        return ""
    return NO_PAIR if attack.goal == "recurrence" else NOBODY


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


def _why_not(plan: Plan, topology: Topology, opened: Opened, seat: Seat) -> str:
    """Why this seat cannot, the data's part in it included."""
    kinds = carried(topology.regime, plan.threat.kinds, topology.labels)
    reason = why_not(plan.attack, _within(seat, opened), kinds, plan.encrypted)
    if not reason or why_not(plan.attack, seat, kinds, plan.encrypted):
        return reason
    return f"it needs {_records(*_missing(opened))}, and {_kept(plan)}"


def _unjudged(plan: Plan, opened: Opened) -> str:
    """One sentence where the data hold nothing to judge such a guess by."""
    if plan.attack.goal != "inversion" or opened.evaluator is not None:
        return ""
    lacking = _missing(opened) & set(plan.attack.needs)
    return (
        f"it needs {_records('evaluator', *lacking)} (a network trained on evaluator records judges an "
        f"inversion), and {_kept(plan)}"
    )


def _records(*grants: str) -> str:
    return " and ".join(f"{grant.removesuffix('s')} records" for grant in sorted(grants))


def _kept(plan: Plan) -> str:
    """The rest of a sentence about records that a split of the data does not have."""
    way = plan.data.split
    if way in ("halves", "official"):
        return f"data.split={way} keeps none; type data.split=thirds"
    return (
        "these data have none; mark some with privbench.arrays(x, y, split=parts), or in the key "
        "split of the file"
    )


def _passive(plan: Plan, topology: Topology, opened: Opened) -> str:
    """One sentence where an active attack meets a threat that only listens."""
    if plan.attack.actor is None or plan.threat.tampers:
        return ""
    able = _instead(plan, topology, opened) or ": none that is installed gives it what it needs"
    return (
        f"attack={plan.names.attack} is active, threat={plan.names.threat} only listens; choose a "
        f"threat that tampers{able}"
    )


def _instead(plan: Plan, topology: Topology, opened: Opened) -> str:
    """The rest of the sentence: which settings, threats or regimes would do for this attack."""
    return instead(plan.names.threat, plan.threat, topology, plan.others(), _able(plan, opened))


def _able(plan: Plan, opened: Opened) -> Able:
    active = plan.attack.actor is not None

    def able(threat: Threat, topology: Topology) -> bool:
        if threat.tampers is not active:
            return False
        kinds = carried(topology.regime, threat.kinds, topology.labels)
        return any(
            not why_not(plan.attack, _within(seat, opened), kinds, plan.encrypted)
            for seat in threat.seats(topology)
        )

    return able


def _missing(opened: Opened) -> set[str]:
    """Grants that this split of the data cannot give."""
    missing = set()
    if opened.candidates is None:
        missing.add("candidates")
    if opened.population.auxiliary is None:
        missing.add("auxiliary")
    return missing


def _within(seat: Seat, opened: Opened) -> Seat:
    """The seat, without grants that this split of the data cannot give."""
    missing = _missing(opened)
    pairs = "none" if seat.pairs in ("prefix", "query") and "auxiliary" in missing else seat.pairs
    return replace(seat, grants=seat.grants - missing, pairs=pairs)


def _chosen(plan: Plan, seats: tuple[Seat, ...]) -> tuple[Seat, ...]:
    """All seats, one by its number or name, or a random sample."""
    threat = plan.threat
    if threat.seat is not None and seats:
        names = [seat.name for seat in seats]
        if threat.seat in names:
            return (seats[names.index(str(threat.seat))],)
        if not isinstance(threat.seat, int) or not 0 <= threat.seat < len(seats):
            shown = names if len(names) < 5 else [*names[:2], "…", names[-1]]
            raise UsageError(
                f"threat.seat={threat.seat}: threat={plan.names.threat} has seats 0 to "
                f"{len(seats) - 1}, called {', '.join(shown)}"
            )
        return (seats[threat.seat],)
    if threat.sample is not None and threat.sample < len(seats):
        rng = child_rng(torch.Generator().manual_seed(plan.seed), "seats")
        drawn = torch.randperm(len(seats), generator=rng)[: threat.sample].sort().values
        return tuple(seats[i] for i in drawn.tolist())
    return seats
