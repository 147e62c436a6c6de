"""Words to plans: every row of the comparison, settings, defenses, Python objects."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import privbench
from privbench import experiment, plugins
from privbench.compose.launch import one
from privbench.compose.words import Words, understood
from privbench.compose.workers import granted
from privbench.data.augmentations import Moved
from privbench.errors import PrivbenchError, UsageError
from privbench.plan import Plan
from privbench.report.report import Report

STUDIES = ("compare", "reconstruction", "membership", "audit")
FOUND = plugins.listing()
ROWS = [(study, row) for study in STUDIES for row in sorted(FOUND[f"row/{study}"])]


def _plan(*words: str) -> Plan:
    return one(understood(words, multirun=True)).plan


def _row_is_a_plan(study: str, row: str) -> None:
    plan = one(Words((f"+row/{study}={row}",))).plan
    regime = plan.names.regime.partition("_matched")[0]
    assert all(word in row for word in (regime, plan.names.threat, plan.names.attack))


@pytest.mark.slow
@pytest.mark.parametrize(("study", "row"), ROWS)
def test_every_row_of_a_study_is_a_plan(study: str, row: str) -> None:
    _row_is_a_plan(study, row)


@pytest.mark.parametrize(
    ("study", "row"),
    [
        (study, row)
        for study, row in ROWS
        if row[:3]
        in {"compare": ("030", "040", "082", "089"), "reconstruction": ("205",)}.get(study, ())
    ],
)
def test_rows_with_settings_are_plans(study: str, row: str) -> None:
    _row_is_a_plan(study, row)


@pytest.mark.parametrize(
    "row",
    ["030-centralized_matched-released-lira", "032-centralized_matched-released-lira-epsilon_8"],
)
def test_a_regime_is_not_named_after_its_variant(row: str) -> None:
    names = one(Words((f"+row/membership={row}",))).plan.names
    assert (names.regime, names.variant.partition("_")[0]) == ("centralized", "matched")


def test_the_core_of_a_study_is_made_of_its_rows() -> None:
    text = FOUND["study"]["membership_core"].path.read_text()
    rows = re.findall(r"\d{3}-[\w-]+", text)
    assert len(rows) == len(set(rows)) >= 10
    assert set(rows) <= set(FOUND["row/membership"])


@pytest.mark.parametrize(("study", "row"), ROWS)
def test_every_row_names_choices_that_are_there(study: str, row: str) -> None:
    text = FOUND[f"row/{study}"][row].path.read_text()
    chosen = dict(re.findall(r"- override /(\w+): \[?(\w+)", text))
    assert row[:3].isdigit() and chosen.keys() >= {"regime", "threat", "attack"}
    for group, name in chosen.items():
        assert name in FOUND[group]
    assert chosen["threat"] in row and chosen["attack"] in row


def test_settings_reach_their_objects() -> None:
    plan = _plan("threat=hosts", "threat.fraction=0.5", "threat.sample=3", "seed=7", "victims=9")
    assert (plan.threat.fraction, plan.threat.sample, plan.seed, plan.victims) == (0.5, 3, 7, 9)


def test_an_augmentation_reaches_every_regime_of_ours() -> None:
    plan = _plan("regime=dpsgd", "augmentation=moved", "augmentation.pixels=2")
    assert plan.regime.augmentation == Moved(pixels=2)
    assert _plan("regime=dpsgd").regime.augmentation is None
    texts = [choice.path.read_text() for choice in FOUND["regime"].values()]
    built = [text for text in texts if "\n_target_: privbench.regimes" in text]
    assert len(built) == 5 and all("\naugmentation: ${augmentation}\n" in text for text in built)


def test_defenses_keep_their_order_and_their_settings() -> None:
    plan = _plan("defense=[none,gaussian_noise]", "defense.gaussian_noise.std=0.25")
    assert plan.names.defense == "none+gaussian_noise"
    assert plan.defenses[1].std == 0.25


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("defense.gaussian_noise.std=1", r"add it: defense=\[gaussian_noise\]"),
        ("threat.fractoin=1", "has no setting 'fractoin'"),
        ("seed=-1", "at least 0"),
        ("threads=0", "at least 1"),
        ("encrypted=maybe", "true or false"),
        ("device=tpu", "auto, cpu or cuda"),
        ("seal=none", "process or inline"),
        ("data=arrays", r"type data\.path=\.\.\."),
        ("model._target_=nowhere.Net", "nowhere"),
        ("seed=[1", "input"),
    ],
)
def test_what_does_not_fit_is_refused(word: str, answer: str) -> None:
    with pytest.raises(PrivbenchError, match=answer) as caught:
        _plan(word)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["crowd=phones", "crowd.devices=3", "tiling=grid", "faults=flaky"])
def test_what_one_run_has_no_use_for_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"would change nothing: regime=split has no .*slicenet"):
        _plan("regime=split", word)
    assert _plan("regime=slicenet", word).names.regime == "slicenet"


def test_paths_and_names_are_no_part_of_the_configuration() -> None:
    assert _plan("out=here", "again=true").config == _plan("out=there", "debug=true").config


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Plans that would have been carried out."""
    plans: list[Plan] = []

    def _run(plan: Plan) -> Report:
        plans.append(plan)
        return Report(plan.names)

    monkeypatch.setattr(experiment, "run", _run)
    return plans


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(40, 1, 8, 8, generator=rng), torch.arange(40) % 4


def test_python_objects_stand_in_for_words(planned: list[Plan]) -> None:
    x, y = _data()
    report = privbench.run("seed=2", model=nn.Flatten, data=privbench.arrays(x, y))
    assert (report.names.data, report.names.model) == ("arrays", "Flatten")
    assert planned[0].model.spec.target == "torch.nn.modules.flatten.Flatten"
    assert torch.equal(planned[0].data.load().samples.x, x)
    assert planned[0].private_name == ""


def test_members_mean_a_model_trained_elsewhere(planned: list[Plan]) -> None:
    x, y = _data()
    trained = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    privbench.run(model=trained, members=(x[:20], y[:20]), non_members=(x[20:], y[20:]))
    assert planned[0].regime.name == "given"
    assert torch.equal(planned[0].model.weights["1.weight"], trained[1].weight)


@pytest.mark.parametrize(
    ("words", "workers"), [((), 6), (("threads=4",), 1), (("threads=4", "workers=3"), 3)]
)
def test_a_run_may_use_the_processors_that_its_threads_leave(
    words: tuple[str, ...], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert _plan(*words).workers == workers


def test_the_number_of_processes_is_auto_or_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(10)), raising=False)
    assert (granted("auto", 1), granted("auto", 3), granted(2, 3)) == (10, 3, 2)
    for wrong in (0, "many", 1.5):
        with pytest.raises(UsageError, match="expected auto"):
            granted(wrong, 1)


def test_python_runs_one_plan(planned: list[Plan]) -> None:
    for words in (("study=compare",), ("seed=1,2",)):
        with pytest.raises(UsageError, match="one run"):
            privbench.run(*words)
    with pytest.raises(UsageError, match="belong together"):
        privbench.run(members=_data())
    assert planned == []
