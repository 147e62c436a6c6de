"""What words ask for, and which are refused with what answer."""

from __future__ import annotations

import pytest

from privbench.compose.words import understood
from privbench.errors import UnknownName, UsageError


def test_no_words_are_the_comparison() -> None:
    asked = understood([])
    assert (asked.study, asked.many, asked.words) == ("compare", True, ("study=compare",))


@pytest.mark.parametrize("word", ["seed=3", "victims=20", "data.split=halves", "seed=1,2"])
def test_other_words_override_the_comparison(word: str) -> None:
    assert understood([word]).study == "compare"


@pytest.mark.parametrize(
    "word", ["threat=host", "attack=loss_threshold", "threat.seat=3", "regime.lr=0.1"]
)
def test_a_word_of_regime_threat_or_attack_is_one_run(word: str) -> None:
    asked = understood([word, "seed=3"])
    assert (asked.study, asked.many) == ("", False)
    assert asked.hint.startswith("one run (regime=centralized, ")
    assert asked.hint.endswith("privbench study=compare seed=3")


def test_a_sweep_is_no_study() -> None:
    asked = understood(["attack=lira,loss_threshold"], multirun=True)
    assert (asked.study, asked.many) == ("", True)


def test_settings_may_be_absent_from_the_yaml() -> None:
    assert "++threat.steps=all" in understood(["threat.steps=all"]).words


def test_a_network_of_ones_own_gets_none_of_our_settings() -> None:
    assert understood(["model._target_=mynet.Net"]).words[0] == "model=own"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("sed=1", "did you mean 'seed'?"),
        ("atack=lira", "did you mean 'attack'?"),
        ("+foo=1", "there is no key 'foo'"),
        ("threat=hosst", "did you mean 'host'?"),
        ("threat=host,hots", "there is no threat 'hots'"),
        ("study=comapre", "did you mean 'compare'?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_right_one(word: str, answer: str) -> None:
    with pytest.raises(UnknownName) as caught:
        understood([word])
    assert answer in str(caught.value)


@pytest.mark.parametrize("words", [["lira"], ["study=compare,other"], ["--seed"]])
def test_what_is_no_word_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        understood(words)


@pytest.mark.parametrize("word", ["rows=040,05*", "rows=[040,05*]"])
def test_rows_of_a_study_are_chosen_by_their_names(word: str) -> None:
    asked = understood(["study=membership", word, "seed=1"])
    assert asked.rows == ("040", "05*")
    assert asked.words == ("study=membership", "seed=1")


@pytest.mark.parametrize(
    ("words", "multirun", "answer"),
    [(["attack=lira"], False, "study=NAME"), (["attack=lira,gap"], True, "study=NAME")],
)
def test_rows_without_a_study_are_refused(words: list[str], multirun: bool, answer: str) -> None:
    with pytest.raises(UsageError, match=answer):
        understood([*words, "rows=040"], multirun)


def test_no_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="expected beginnings or patterns"):
        understood(["study=membership", "rows="])
