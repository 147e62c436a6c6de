"""One run: in which order things happen, what is kept, and what a row of a study becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from attacks.membership.loss_threshold import LossThreshold
from privbench import experiment
from privbench.compose.launch import one
from privbench.compose.plans import Given
from privbench.compose.words import Words
from privbench.contract import Knowledge, Net, Spec, View, child_rng
from privbench.data.arrays import arrays
from privbench.data.splits import Opened, open_population
from privbench.errors import AttackError, NotApplicable, TrainingError
from privbench.experiment import carry_out, fitted, oracle_of, run, run_row
from privbench.plan import Plan
from privbench.regimes import over_wire
from privbench.regimes.centralized import Centralized
from privbench.scoring import evaluator, scorer
from privbench.scoring.rates import clopper_pearson
from privbench.seal import Seal
from privbench.store import Store, fingerprint
from privbench.targets import target_of
from privbench.threats.insider import Trainer
from privbench.threats.outsider import Api

WORDS = ("regime=centralized", "threat=released", "attack=loss_threshold")


@pytest.fixture
def quick(plan: Callable[..., Plan], strangers: ModuleType) -> Plan:
    """A membership attack that takes no time, on the shared target."""
    return replace(plan(*WORDS), attack=strangers.Guesses())


@pytest.fixture
def fresh(quick: Plan, tmp_path: Path) -> Plan:
    """The same, where nothing lies yet."""
    return replace(quick, out=tmp_path)


def test_the_guess_is_hashed_before_the_truth_is_opened(
    quick: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    hashed, scored = experiment.fingerprint, experiment.scored

    def _hash(*parts: Any) -> str:
        found = hashed(*parts)
        told.append(("hash", found))
        return found

    def _score(plan: Plan, opened: Opened, views: Any, guesses: Any, *rest: Any) -> Any:
        told.append(("truth", hashed(tuple(guesses))))
        return scored(plan, opened, views, guesses, *rest)

    monkeypatch.setattr(experiment, "fingerprint", _hash)
    monkeypatch.setattr(experiment, "scored", _score)
    report = carry_out(quick)
    assert [name for name, _ in told] == ["hash", "truth"]
    assert report.run.guess_hash == told[0][1] == told[1][1]


def test_the_hash_depends_on_the_guess_alone(quick: Plan, strangers: ModuleType) -> None:
    one, again = carry_out(quick), carry_out(quick)
    other = carry_out(replace(quick, attack=strangers.Guesses(sign=-1.0)))
    assert one.run.guess_hash == again.run.guess_hash
    assert one.run.guess_hash != other.run.guess_hash


def test_another_truth_gives_the_same_guess_and_another_score(
    plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(*WORDS)
    honest = carry_out(made)
    real = open_population

    def _swapped(source: Any, seed: int) -> Opened:
        opened = real(source, seed)
        places = opened.truth.places
        assert places is not None
        rng = child_rng(torch.Generator().manual_seed(3), "swap")
        opened.truth.places = places[torch.randperm(len(places), generator=rng)]
        return opened

    monkeypatch.setattr(experiment, "open_population", _swapped)
    swapped = carry_out(made)
    assert swapped.run.guess_hash == honest.run.guess_hash
    assert swapped.scores[0].value != honest.scores[0].value


def test_attacks_draw_from_a_seed_that_is_not_the_trainers(quick: Plan) -> None:
    assert experiment.attack_seed(quick) != quick.seed
    assert experiment.attack_seed(quick) == experiment.attack_seed(replace(quick, victims=3))
    assert experiment.attack_seed(quick) != experiment.attack_seed(replace(quick, seed=1))


def test_a_finished_report_is_kept_until_asked_again(fresh: Plan) -> None:
    first = run(fresh)
    (file,) = fresh.out.glob("runs/*/report.json")
    assert file.parent.name == first.run.fingerprint
    file.write_text(file.read_text().replace('"reason": ""', '"reason": "kept"', 1))
    assert run(fresh).reason == "kept"
    assert run(replace(fresh, again=True)).reason == ""
    assert run(fresh).reason == ""


def test_a_target_is_trained_once_for_many_attacks(
    fresh: Plan, strangers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    train = Centralized.train

    def _train(self: Centralized, *args: Any) -> Any:
        trained.append(self)
        return train(self, *args)

    monkeypatch.setattr(Centralized, "train", _train)
    one, other = run(fresh), run(replace(fresh, attack=strangers.Guesses(sign=-1.0)))
    assert len(trained) == 1
    assert one.target == other.target
    run(replace(fresh, seed=1))
    assert len(trained) == 2


def test_what_goes_wrong_in_a_study_is_a_row_and_is_tried_again(
    fresh: Plan, strangers: ModuleType
) -> None:
    broken = replace(fresh, attack=strangers.Guesses(broken=True))
    report = run_row(broken)
    assert (report.status, report.names) == ("failed", fresh.names)
    assert "it broke" in report.reason
    assert not list(fresh.out.glob("runs/*/report.json"))
    with pytest.raises(AttackError, match="it broke"):
        run_row(replace(broken, debug=True))
    with pytest.raises(AttackError, match="it broke"):
        run(broken)


def test_training_that_fails_is_a_row_and_leaves_no_target(fresh: Plan) -> None:
    report = run_row(replace(fresh, regime=replace(fresh.regime, lr=1e30)))
    assert report.status == "failed"
    assert "regime.lr" in report.reason
    assert not [folder for folder in (fresh.out / "targets").iterdir() if folder.name != ".locks"]


def test_what_does_not_apply_is_a_row_with_its_sentence(fresh: Plan) -> None:
    report = run_row(replace(fresh, attack=LossThreshold(), threat=Trainer()))
    assert report.status == "not_applicable"
    assert report.reason == report.refusals[0].reason
    assert report.reason.startswith("it needs released weights or oracle probabilities")
    (row,) = report.table().to_dict("records")
    assert (row["status"], row["verdict"]) == ("not_applicable", "not applicable")
    assert not report.scores


def test_an_active_attack_among_listeners_is_a_row(fresh: Plan, strangers: ModuleType) -> None:
    report = run_row(replace(fresh, attack=strangers.Active()))
    assert report.status == "not_applicable"
    assert "choose a threat that tampers" in report.reason


def test_a_stranger_who_diverges_is_told_in_one_sentence(
    fresh: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def _train(self: Centralized, *_: Any) -> Any:
        raise TrainingError("it diverged")

    monkeypatch.setattr(Centralized, "train", _train)
    assert run_row(fresh).reason == "it diverged"


def test_the_report_says_whether_it_was_sealed_and_what_ran(quick: Plan) -> None:
    report = carry_out(quick)
    assert report.run.sealed is False
    assert report.run.seed == quick.seed
    assert report.run.fingerprint == quick.row_print(open_population(quick.data, 0).digest)
    assert report.run.versions["torch"]
    assert report.run.queries is None


def test_only_who_may_ask_gets_an_oracle(plan: Callable[..., Plan], rig: Callable) -> None:
    trained = rig(*WORDS)
    (holder,) = trained.seats
    assert oracle_of(trained.plan, trained.target, holder) is None
    asks = replace(trained.plan, threat=Api())
    (asker,) = asks.threat.seats(trained.target.topology)
    assert oracle_of(asks, trained.target, asker) is not None
    (view,) = replace(trained, seats=(asker,)).views()
    assert view.public.net is None, "who queries never holds the model"
    assert not view.weights


def test_queries_are_counted_in_the_report(plan: Callable[..., Plan]) -> None:
    report = carry_out(plan("regime=centralized", "threat=api", "attack=loss_threshold"))
    assert report.run.queries == 180 + 60  # candidates, and auxiliary records for the threshold


def test_the_budget_ends_an_attack(plan: Callable[..., Plan]) -> None:
    words = ("threat=api", "threat.budget.queries=10", "attack=loss_threshold")
    report = run_row(plan("regime=centralized", *words))
    assert report.status == "failed"
    assert "threat.budget.queries" in report.reason


@pytest.fixture
def host(crowd: Callable, strangers: ModuleType, tmp_path: Path) -> tuple[Plan, View]:
    """An attack with two fits, and the view of a host."""
    trained = crowd("threat=host")
    attack = strangers.Fitting()
    return replace(trained.plan, attack=attack, out=tmp_path), trained.views()[0]


def test_a_fit_gets_of_the_seat_only_what_it_asks_for(host: tuple[Plan, View]) -> None:
    plan, view = host
    with Seal("inline") as seal:
        bare, asking = fitted(plan, view, seal, Store(plan.out)).fitted
    assert view.own is not None
    assert bare.facts == {"weights": 0, "own": 0}
    assert asking.facts == {"weights": len(view.weights), "own": len(view.own.rows)}


def test_fits_are_stored_by_what_they_were_given(
    host: tuple[Plan, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, view = host
    given: list[Knowledge] = []
    fit = Seal.fit

    def _fit(self: Seal, spec: Any, knowledge: Knowledge, seed: int) -> Any:
        given.append(knowledge)
        return fit(self, spec, knowledge, seed)

    monkeypatch.setattr(Seal, "fit", _fit)
    with Seal("inline") as seal:
        store = Store(plan.out)
        first = fitted(plan, view, seal, store)
        again = fitted(plan, view, seal, store)
        assert len(given) == 2
        assert fingerprint(first.fitted) == fingerprint(again.fitted)
        fitted(plan, replace(view, weights=view.weights[:1]), seal, store)
        assert len(given) == 3, "the fit that asks for weights, and it alone, is made anew"
        fitted(replace(plan, seed=1), view, seal, store)
        assert len(given) == 5
        monkeypatch.setattr("privbench.plan.digest_of_source", lambda thing: "edited")
        fitted(plan, view, seal, store)
        assert len(given) == 7, "a stranger who edits a fit gets what it does now"


def test_the_accuracy_has_its_interval(plan: Callable[..., Plan]) -> None:
    report = run(plan("regime=centralized", "threat=released", "attack=loss_threshold"))
    exact = clopper_pearson(round(report.target.accuracy * 90), 90)
    assert report.target.accuracy_low == exact.low <= report.target.accuracy
    assert report.target.accuracy_high == exact.high >= report.target.accuracy


def test_seats_to_which_an_attack_does_not_apply_are_counted_and_the_others_attacked(
    plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("regime=slicenet", "crowd.devices=4", "regime.granularity=4", "threat=host")
    made = plan(*words, "attack=ridge_decoder")
    whole = carry_out(made)
    attack = Seal.attack

    def _but_one(self: Seal, spec: Any, views: Any, *rest: Any) -> list[Any]:
        if any(view.seat.name == "device-1" for view in views):
            raise NotApplicable("'device-1' sees nothing of use")
        return attack(self, spec, views, *rest)

    monkeypatch.setattr(Seal, "attack", _but_one)
    report = carry_out(made)
    (refusal,) = set(report.refusals) - set(whole.refusals)
    assert (refusal.reason, refusal.seats) == ("this seat sees nothing of use", 1)
    assert {seat.seat for seat in whole.seats} - {seat.seat for seat in report.seats} == {
        "device-1"
    }
    alone = {(s.seat, s.metric): s for s in report.scores if s.seat.startswith("device-")}
    together = {(s.seat, s.metric): s for s in whole.scores if s.seat.startswith("device-")}
    assert alone and all(together[key] == score for key, score in alone.items())


def test_an_attack_that_applies_to_no_seat_is_not_applicable(
    fresh: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def _never(*_: Any) -> list[Any]:
        raise NotApplicable("it never does")

    monkeypatch.setattr(Seal, "attack", _never)
    report = run(fresh)
    assert (report.status, report.reason) == ("not_applicable", "it never does")


def test_the_evaluator_is_trained_once_for_all_runs_on_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 12 pixels, whose likeness is judged by eye."""
    made: list[int] = []
    train = scorer.train_evaluator
    monkeypatch.setattr(evaluator, "STEPS", 5)
    monkeypatch.setattr(scorer, "train_evaluator", lambda *a: made.append(1) or train(*a))
    rng = torch.Generator().manual_seed(0)
    data = arrays(torch.rand(90, 1, 12, 12, generator=rng).numpy(), np.arange(90) % 2)
    net = Net(Spec("privbench.models.mlp.Mlp", {"widths": (144, 2)}))
    words = ("threat=trainer", "attack=read_out", "device=cpu", "seal=inline", f"out={tmp_path}")
    for victims in (5, 6):
        given = Given(model=net, data=data)
        report = carry_out(one(Words((*words, f"victims={victims}")), given).plan)
        assert "perceptual" in {score.metric for score in report.scores}
    assert len(made) == 1


def test_shadow_models_of_a_noisy_crowd_are_noisy_crowds(plan: Callable[..., Plan]) -> None:
    crowd = ("regime=slicenet", "crowd.devices=4", "threat=released", "attack=lira")
    budget = "threat.budget.shadow_models=4"
    noisy = plan(*crowd, budget, "defense=[gaussian_noise]", "defense.gaussian_noise.std=0.5")
    opened = open_population(noisy.data, noisy.seed)
    target = target_of(noisy, opened, Store(noisy.out)).trained
    assert target.recipe.protocol is not None
    assert (target.recipe.net.weights, target.trainer) == (None, over_wire.TRAINER)
    report = carry_out(noisy, opened)
    assert (report.status, report.run.shadow_models) == ("ok", 4)
    assert not any("shadow" in said for said in report.run.warnings)


@pytest.mark.parametrize(
    ("defense", "handed_over"),
    [("[]", True), ("[gaussian_noise]", False)],
)
def test_what_a_defense_changed_is_not_handed_over_by_construction(
    plan: Callable[..., Plan], defense: str, handed_over: bool
) -> None:
    seat = ("regime=slicenet", "crowd.devices=4", "threat=host")
    small = ["defense.gaussian_noise.std=0.001"] if not handed_over else []
    report = carry_out(plan(*seat, "attack=activation_match", f"defense={defense}", *small))
    assert report.status == "ok", report.reason
    area = next(score for score in report.scores if score.metric == "auc")
    assert (area.by_construction, area.value > 0.95) == (handed_over, True)
