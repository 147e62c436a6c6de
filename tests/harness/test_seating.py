"""Who can use an attack, and the sentence for who cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from privbench.contract import Attack, Guess, Seat, View
from privbench.data.splits import open_population
from privbench.errors import NotApplicable, UsageError
from privbench.experiment import carry_out
from privbench.seating import NOBODY, seats_of, why_not, with_victims
from privbench.threats.crowd import Host


@dataclass(frozen=True, kw_only=True)
class _Needy(Attack):
    """Needs one of two, and pairs, and traffic."""

    goal: ClassVar[str] = "reconstruction"
    needs: ClassVar[tuple[str, ...]] = ("recipe|labels", "pairs")
    reads: ClassVar[tuple[str, ...]] = ("activation", "gradient")
    source: ClassVar[str] = "none: a test"

    def run(self, view: View, rng: torch.Generator) -> Guess:
        raise RuntimeError("never run")


def _seat(*grants: str, pairs: str = "own", parties: tuple[str, ...] = ("device-0",)) -> Seat:
    return Seat("one", "peer", parties, grants=frozenset(grants), pairs=pairs)


@pytest.mark.parametrize(
    ("seat", "kinds", "encrypted", "reason"),
    [
        (_seat("recipe"), ("gradient",), False, ""),
        (_seat("labels"), ("activation", "update"), False, ""),
        (_seat("recipe"), ("activation",), True, ""),
        (_seat("recipe"), ("update",), False, "it reads activation or gradient, and this seat sees update"),
        (_seat("recipe"), (), False, "this seat sees no traffic"),
        (_seat("candidates"), ("gradient",), False, "it needs recipe or labels, which this seat"),
        (_seat("recipe", pairs="none"), ("gradient",), False, "it needs pairs of input and activation"),
        (_seat("recipe", parties=()), ("gradient",), True, "the wire is encrypted"),
    ],
)  # fmt: skip
def test_the_reason_says_what_lacks(
    seat: Seat, kinds: tuple[str, ...], encrypted: bool, reason: str
) -> None:
    found = why_not(_Needy(), seat, kinds, encrypted)
    assert reason in found
    assert bool(found) is bool(reason)


def _seated(rig: Any, **changed: object) -> Any:
    return seats_of(replace(rig.plan, **changed), rig.target.topology, rig.opened)


def test_a_regime_without_such_a_seat_says_so(rig: Callable) -> None:
    trained = rig("regime=centralized", "threat=trainer", "attack=read_out")
    seats, (refusal,) = _seated(trained, threat=Host())
    assert seats == ()
    assert refusal.reason.startswith("regime=centralized has no seat for threat=host")


def test_refused_seats_are_counted_by_reason_beside_those_that_can(crowd: Callable) -> None:
    trained = crowd("threat=host")
    grants = ("recipe", "own_samples", "auxiliary")
    some = (_seat(*grants, pairs="none"), *(_seat(*grants) for _ in range(2)), _seat(pairs="own"))
    threat = _Fixed(placed=some)
    seats, refusals = _seated(trained, threat=threat, attack=_Needy())
    assert seats == some[1:3]
    assert sorted((refusal.seats, refusal.reason[:22]) for refusal in refusals) == [
        (1, "it needs pairs of inpu"),
        (1, "it needs recipe or lab"),
    ]
    seats, (refusal,) = _seated(trained, threat=_Fixed(placed=some[:1] * 3), attack=_Needy())
    assert not seats
    assert refusal.seats == 3


@dataclass(frozen=True, kw_only=True)
class _Fixed(Host):
    """Hosts with seats made up by the test."""

    placed: tuple[Seat, ...]

    def seats(self, topology: object) -> tuple[Seat, ...]:
        return self.placed


def test_the_sentence_names_threats_that_would_do(crowd: Callable) -> None:
    trained = crowd("threat=host")
    here = replace(trained.plan, threat=_Fixed(placed=(_seat(pairs="none"),)))
    _, (refusal,) = seats_of(here, trained.target.topology, trained.opened)
    named = refusal.reason.partition("; here it can be run with ")[2].split(" or ")
    assert {"threat=host", "threat=wire"} <= set(named)
    assert not {"threat=released", "threat=coordinator", "threat=server"} & set(named)


def test_a_seat_that_saw_nobody_is_counted_and_not_scored(crowd: Callable) -> None:
    trained = crowd("threat=host")
    first, second, *others = trained.views()
    nobody = replace(second, victims=second.victims[:0])
    kept, refusals = with_victims(trained.plan.attack, (first, nobody, *others))
    assert kept == (first, *others)
    assert [(r.reason, r.seats, r.column) for r in refusals] == [(NOBODY, 1, "peer")]


def test_a_run_in_which_nobody_saw_anybody_is_not_applicable(crowd: Callable) -> None:
    plan = crowd("threat=owner", "attack=gradient_inversion").plan
    report = carry_out(replace(plan, threat=replace(plan.threat, steps="first:1")))
    assert (report.status, report.reason, report.scores) == ("not_applicable", NOBODY, ())
    assert set(report.table()["status"]) == {"not_applicable"}
    assert report.table()["seats"].tolist() == [4]


def test_a_split_without_auxiliary_records_grants_none(rig: Callable) -> None:
    trained = rig("regime=centralized", "threat=released", "attack=mi_face")
    halves = open_population(replace(trained.plan.data, split="halves"), 0)
    seats, _ = seats_of(trained.plan, trained.target.topology, halves)
    assert "auxiliary" not in seats[0].grants
    assert "candidates" in seats[0].grants


def test_pairs_that_take_auxiliary_records_go_with_them(crowd: Callable) -> None:
    trained = crowd("threat=host")
    halves = open_population(replace(trained.plan.data, split="halves"), 0)
    placed = tuple(_seat("recipe", pairs=pairs) for pairs in ("prefix", "query", "own"))
    plan = replace(trained.plan, threat=_Fixed(placed=placed), attack=_Needy())
    seats, refusals = seats_of(plan, trained.target.topology, halves)
    assert [seat.pairs for seat in seats] == ["own"]
    assert sum(refusal.seats for refusal in refusals) == 2


def test_one_seat_by_number(crowd: Callable) -> None:
    trained = crowd("threat=host")
    every, _ = _seated(trained)
    (third,), _ = _seated(trained, threat=Host(seat=2))
    assert third == every[2]
    for number in (-1, len(every)):
        with pytest.raises(UsageError, match=f"seats 0 to {len(every) - 1}"):
            _seated(trained, threat=Host(seat=number))


def test_a_sample_of_seats_follows_the_seed(crowd: Callable) -> None:
    trained = crowd("threat=host")
    drawn = {_seated(trained, threat=Host(sample=2), seed=seed)[0] for seed in range(8)}
    assert {len(seats) for seats in drawn} == {2}
    assert len(drawn) > 1
    assert _seated(trained, threat=Host(sample=2)) == _seated(trained, threat=Host(sample=2))
    assert len(_seated(trained, threat=Host(sample=99))[0]) == 4


def test_an_active_attack_needs_a_threat_that_tampers(rig: Callable, strangers: ModuleType) -> None:
    trained = rig("regime=centralized", "threat=released", "attack=loss_threshold")
    with pytest.raises(NotApplicable, match=r"threat=released only listens; choose a threat"):
        _seated(trained, attack=strangers.Active())
