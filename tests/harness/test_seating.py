"""Who can use an attack, and the sentence for who cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

import privbench
from attacks.membership.population import Population
from defenses.none import NoDefense
from privbench.compose.plans import threats
from privbench.contract import Attack, Guess, Seat, View
from privbench.data.splits import open_population
from privbench.errors import PluginError, UsageError
from privbench.experiment import carry_out
from privbench.models.mlp import Mlp
from privbench.seating import NOBODY, NOBODY_ELSE, seats_of, why_not, with_victims
from privbench.threats.crowd import Host
from privbench.threats.sketches import SKETCHES


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
    trained = rig("regime=centralized", "threat=host", "attack=read_out")
    seats, (refusal,) = _seated(trained)
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


WAYS = [
    (
        ("regime=centralized", "threat=host", "attack=ridge_decoder"),
        "regime=centralized has no seat for threat=host; it can be run with regime=slicenet",
    ),
    (
        ("regime=fedavg", "threat=server", "attack=ridge_decoder"),
        "it reads activation or partial_sum, and this seat sees update, global_weights; it can be run "
        "with regime=slicenet threat=host or regime=slicenet threat=hosts or regime=slicenet threat=wire",
    ),
    (
        ("regime=split", "threat=split_server", "attack=ridge_decoder"),
        "it needs pairs of input and activation, and this seat has no way to get any; "
        "here it can be run with threat.pairs=query",
    ),
    (
        ("regime=fedavg", "threat=wire", "attack=read_out"),
        "it reads samples, and this seat sees update, global_weights; "
        "it can be run with regime=centralized",
    ),
    (
        ("regime=centralized", "threat=host", "attack=loss_threshold"),
        "regime=centralized has no seat for threat=host; "
        "here it can be run with threat=api or threat=released",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), WAYS, ids=[" ".join(way[0][1:]) for way in WAYS])
def test_a_refusal_says_what_to_type_instead(
    words: tuple[str, ...], sentence: str, rig: Callable
) -> None:
    seats, (refusal,) = _seated(rig(*words))
    assert (seats, refusal.reason) == ((), sentence)


@pytest.mark.parametrize("regime", ["centralized", "fedavg", "split", "slicenet"])
def test_sketches_are_like_what_they_stand_for(regime: str, rig: Callable, crowd: Callable) -> None:
    if regime == "slicenet":
        trained = [crowd("threat=host"), crowd("threat=host", "tiling=input")]
    else:
        trained = [rig(f"regime={regime}")]
    sketch = SKETCHES[regime]
    assert {m.kind for one in trained for m in one.target.transcript.messages} == set(sketch.kinds)
    for name, threat in threats().items():
        found = {(s.column, s.grants, s.pairs) for s in threat.seats(sketch.topology)}
        real = {(s.column, s.grants, s.pairs) for s in threat.seats(trained[0].target.topology)}
        assert bool(found) == bool(real), name
        assert real <= found or name == "hosts", name  # a coalition is drawn


def test_a_given_model_has_no_wire() -> None:
    assert threats()["wire"].seats(SKETCHES["given"].topology) == ()


def test_data_without_the_records_that_are_needed_are_named(tmp_path: Path) -> None:
    x, y = torch.rand(40, 6), torch.arange(40) % 2
    report = privbench.run(
        "attack=mi_face", f"out={tmp_path}", model=Mlp([6, 4, 2]), members=(x[:20], y[:20]),
        non_members=(x[20:], y[20:]),
    )  # fmt: skip
    assert report.status == "not_applicable"
    assert report.reason.startswith("it needs auxiliary records and evaluator records")
    assert "privbench.arrays(x, y, split=parts)" in report.reason


def test_a_split_that_keeps_no_auxiliary_records_is_named(rig: Callable) -> None:
    trained = rig("regime=centralized", "threat=released", "attack=loss_threshold")
    data = replace(trained.plan.data, split="halves")
    halves = open_population(data, 0)
    _, (refusal,) = seats_of(
        replace(trained.plan, attack=_Hungry(), data=data), trained.target.topology, halves
    )
    words = "it needs auxiliary records, and data.split=halves keeps none; type data.split=thirds"
    assert refusal.reason == words


@dataclass(frozen=True, kw_only=True)
class _Hungry(_Needy):
    """Needs auxiliary records."""

    goal: ClassVar[str] = "membership"
    needs: ClassVar[tuple[str, ...]] = ("auxiliary",)
    reads: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, kw_only=True)
class _Misspelt(_Needy):
    """Has a check of its own in place of the contract's."""

    needs: ClassVar[tuple[str, ...]] = ("released_weigths",)

    def __post_init__(self) -> None:
        return


def test_a_need_of_no_such_name_is_no_seats_fault(rig: Callable) -> None:
    trained = rig("regime=centralized", "threat=released", "attack=loss_threshold")
    with pytest.raises(PluginError, match="did you mean 'released_weights'"):
        _seated(trained, attack=_Misspelt())


def test_a_defense_that_finds_nothing_to_change_is_not_applicable(
    rig: Callable, strangers: ModuleType
) -> None:
    trained = rig("regime=centralized", "threat=released", "attack=loss_threshold")
    report = carry_out(replace(trained.plan, defenses=(strangers.Idle(),)))
    assert report.status == "not_applicable"
    assert report.reason == (
        "Idle changes activation, and regime=centralized sends samples, labels: it would defend "
        "nothing; type defense=[], or choose regime=split or regime=slicenet"
    )
    assert _seated(trained, defenses=(NoDefense(),))[0], "a double changes nothing on purpose"


@pytest.mark.parametrize("words", [("threat=hosts", "threat.fraction=1.0"), ("crowd.devices=1",)])
def test_where_everybody_is_inside_nobody_is_left(words: tuple[str, ...], crowd: Callable) -> None:
    report = carry_out(crowd(*(() if "threat=hosts" in words else ("threat=host",)), *words).plan)
    assert (report.status, report.reason) == ("not_applicable", NOBODY_ELSE)


def test_who_owns_every_record_has_no_member_to_guess(crowd: Callable) -> None:
    first = crowd("threat=host").views()[0]
    alone = replace(first, topology=replace(first.topology, owners=first.seat.parties))
    guessing = Population()
    kept, refusals = with_victims(guessing, (alone, first))
    assert (kept, [refusal.reason for refusal in refusals]) == ((first,), [NOBODY_ELSE])


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
    trained = rig("regime=centralized", "threat=released", "attack=loss_threshold")
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
    for seat in (2, "device-2"):
        (third,), refusals = _seated(trained, threat=Host(seat=seat))
        assert third == every[2]
        assert refusals == (), "the table names the seat; the others were not asked for"
    for number in (-1, len(every), "device-9", "2"):
        with pytest.raises(UsageError, match=f"seats 0 to {len(every) - 1}, called device-0"):
            _seated(trained, threat=Host(seat=number))


def test_a_sample_of_seats_follows_the_seed(crowd: Callable) -> None:
    trained = crowd("threat=host")
    drawn = {_seated(trained, threat=Host(sample=2), seed=seed)[0] for seed in range(8)}
    assert {len(seats) for seats in drawn} == {2}
    assert len(drawn) > 1
    assert _seated(trained, threat=Host(sample=2)) == _seated(trained, threat=Host(sample=2))
    every, refusals = _seated(trained, threat=Host(sample=99))
    assert (len(every), refusals) == (4, ())


def test_the_table_says_that_seats_were_drawn(crowd: Callable) -> None:
    _, (refusal,) = _seated(crowd("threat=host"), threat=Host(sample=3))
    assert refusal.reason == "not attacked: threat.sample=3 drew 3 of 4 at random"
    assert (refusal.seats, refusal.column) == (1, "peer")


def test_an_active_attack_needs_a_threat_that_tampers(rig: Callable, strangers: ModuleType) -> None:
    trained = rig("regime=centralized", "threat=released", "attack=loss_threshold")
    seats, (refusal,) = _seated(trained, attack=strangers.Active())
    assert not seats
    assert "threat=released only listens; choose a threat that tampers; it can" in refusal.reason
    assert "regime=fedavg threat=server_active" in refusal.reason
