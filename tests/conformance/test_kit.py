"""The kit itself: each rule refuses the plug-in that breaks it, and lets the honest one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attacks.blind import BlindMembership
from privbench import plugins
from privbench.checks import Workshop, attack_rules, checks_of, defense_rules
from privbench.checks import stage as stages
from privbench.checks.stage import Kind
from privbench.errors import PluginError, PrivbenchError, UnknownName

FAULTS = [
    ("short", attack_rules.answers_every_victim, "the guess has scores 359, expected 360"),
    ("another goal", attack_rules.answers_every_victim, "MembershipGuess"),
    ("writes", attack_rules.leaves_things_alone, "changed its view"),
    ("global", attack_rules.leaves_things_alone, "global random generator"),
    ("mixes", attack_rules.shares_without_mixing, "run_all and run disagree"),
    ("not repeatable", attack_rules.is_blind_to_the_truth, "the guess depends"),
    ("not a number", attack_rules.survives_odd_views, "a view that is broken .* broke it: Plugin"),
    ("mute", attack_rules.survives_odd_views, "of a view that is broken it says 'no' only"),
]


@pytest.mark.parametrize(("fault", "rule", "words"), FAULTS)
def test_a_rule_refuses_who_breaks_it_and_nobody_else(
    fault: str, rule: Callable[..., None], words: str, shop: Workshop, broken: ModuleType
) -> None:
    with pytest.raises(PrivbenchError, match=words):
        rule("faulty", broken.Faulty(fault=fault), shop)
    rule("honest", broken.Faulty(), shop)


@pytest.mark.slow
def test_what_cannot_be_repeated_is_refused(shop: Workshop, broken: ModuleType) -> None:
    with pytest.raises(PluginError, match="two runs with the same seed"):
        attack_rules.repeats_itself("faulty", broken.Faulty(fault="not repeatable"), shop)
    attack_rules.repeats_itself("honest", broken.Faulty(), shop)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NeedsMagic", "needs names 'magic'"),
        ("ReadsMinds", "reads names 'thoughts'"),
        ("NeedsNothing", "needs nothing and reads nothing"),
        ("WantsAnotherGoal", "goal='lottery' is unknown; goals are membership"),
        ("Misspelt", "'released_weigths', which is unknown; did you mean 'released_weights'"),
        ("MisspeltGoal", "goal='membershp' is unknown; did you mean 'membership'"),
        ("WantsLater", "goal='attribute' has no guess and no score yet; expected membership"),
        ("NeedsLetters", r"needs='candidates'; expected a tuple: \('candidates',\)"),
        ("Unchecked", "'released_weigths', which is unknown"),
    ],
)
def test_words_of_the_contract_alone(name: str, words: str, broken: ModuleType) -> None:
    with pytest.raises(PluginError, match=words):
        attack_rules.states_what_it_needs(name, getattr(broken, name)(), Workshop(Path("nowhere")))
    attack_rules.states_what_it_needs("honest", broken.Faulty(), Workshop(Path("nowhere")))


@pytest.mark.parametrize(
    ("name", "words"), [("Unsourced", "must cite"), ("Undocumented", "no docstring")]
)
def test_sources_and_docstrings(name: str, words: str, broken: ModuleType) -> None:
    with pytest.raises(PluginError, match=words):
        attack_rules.cites_its_source(name, getattr(broken, name)(), Workshop(Path("nowhere")))


@pytest.fixture
def told(shop: Workshop, broken: ModuleType, tmp_path: Path) -> str:
    """A file with the truth of the target on which power is measured."""
    member = shop.stage(broken.Faulty(), 0, Kind.RANDOM).opened.truth.member
    assert member is not None
    file = tmp_path / "truth"
    file.write_text("".join(str(int(bit)) for bit in member))
    return str(file)


def test_who_is_given_the_truth_scores_perfectly(
    told: str, shop: Workshop, broken: ModuleType
) -> None:
    attack = broken.Told(truth=told)
    (score,) = shop.stage(attack, 0, Kind.RANDOM).scores(shop.guesses(attack, 0, Kind.RANDOM))
    assert score.value == 1.0
    attack_rules.is_loud("told", attack, shop)


def test_who_guesses_blind_must_say_so(shop: Workshop, broken: ModuleType) -> None:
    with pytest.raises(PluginError, match="a planted signal was missed"):
        attack_rules.is_loud("honest", broken.Faulty(), shop)
    attack_rules.is_loud("blind", BlindMembership(), shop)


def test_a_double_that_finds_something_is_none(
    told: str, shop: Workshop, broken: ModuleType
) -> None:
    with pytest.raises(PluginError, match="a double found a signal"):
        attack_rules.is_loud("told", broken.ToldDouble(truth=told), shop)


def test_a_signal_where_there_is_none_is_refused(
    told: str, shop: Workshop, broken: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = broken.Told(truth=told)
    attack_rules.is_quiet("told", attack, shop)  # other truths know nothing of this one
    monkeypatch.setattr(stages, "swapped", lambda opened, draw: opened)
    with pytest.raises(PluginError, match="20 of 20 intervals lie beyond"):
        attack_rules.is_quiet("told", attack, Workshop(shop.folder))


def test_a_view_that_shows_the_truth_is_found(
    shop: Workshop, broken: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack_rules.is_blind_to_the_truth("honest", broken.ByLabel(), shop)
    cut = stages.cut

    def _leaky(plan: Any, opened: Any, *rest: Any) -> Any:
        bits = opened.truth.member.long()
        views = cut(plan, opened, *rest)
        return [
            replace(v, public=replace(v.public, candidates=replace(v.public.candidates, y=bits)))
            for v in views
        ]

    monkeypatch.setattr(stages, "cut", _leaky)
    with pytest.raises(PluginError, match="depends on a truth"):
        attack_rules.is_blind_to_the_truth("leaky", broken.ByLabel(), Workshop(shop.folder))


def test_an_attack_without_a_seat_is_told_why(
    shop: Workshop, broken: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "PLACES", stages.PLACES[:1])
    with pytest.raises(PluginError, match="NeedsAnother has a seat nowhere; regime=centralized"):
        shop.stage(broken.NeedsAnother(), 0, Kind.REAL)


DEFENSES = [
    ("in place", defense_rules.sends_whole_messages, "return a new one"),
    ("dtype", defense_rules.sends_whole_messages, "must keep kind, rows, shape and dtype"),
    ("nan", defense_rules.sends_whole_messages, "NaN"),
    ("not repeatable", defense_rules.repeats_itself, "draw from rng alone"),
    ("global", defense_rules.repeats_itself, "draw from rng alone"),
]


@pytest.mark.parametrize(("fault", "rule", "words"), DEFENSES)
def test_a_rule_refuses_the_defense_that_breaks_it(
    fault: str, rule: Callable[..., None], words: str, broken: ModuleType
) -> None:
    with pytest.raises(PluginError, match=words):
        rule("faulty", broken.FaultyDefense(fault=fault), Workshop(Path("nowhere")))
    rule("honest", broken.FaultyDefense(), Workshop(Path("nowhere")))


@pytest.mark.parametrize(
    ("name", "words"), [("LoudDouble", "a double sends"), ("DefendsThoughts", "'thoughts'")]
)
def test_defenses_keep_their_word(name: str, words: str, broken: ModuleType) -> None:
    with pytest.raises(PluginError, match=words):
        defense_rules.sends_whole_messages(name, getattr(broken, name)(), Workshop(Path("no")))


def test_every_attack_and_defense_of_ours_is_checked() -> None:
    found = plugins.listing()
    names = {
        choice.name
        for group in ("attack", "defense")
        for choice in found[group].values()
        if choice.provider == "privbench"
    }
    checked = {check.plugin for check in checks_of("privbench")}
    assert checked == names
    assert {"lira", "ridge_decoder", "gaussian_noise"} <= checked


def test_an_unknown_plug_in_is_answered_with_the_right_ones() -> None:
    with pytest.raises(UnknownName, match="lira"):
        list(checks_of("lirra"))
