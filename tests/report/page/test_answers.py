"""What came out, in words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from privbench.report.folder import lines_of
from privbench.report.page.answers import Answer, answers
from privbench.report.page.words import listed, of_hundred, share
from privbench.report.report import Report
from privbench.scoring.score import Score


def _told(*reports: Report, thing: str = "image") -> dict[str, Answer]:
    return {answer.heading: answer for answer in answers(lines_of(reports), thing)}


def test_a_reader_learns_which_devices_see_too_much(study: tuple[Report, ...]) -> None:
    told = _told(*study)
    assert told["SliceNet crowd"].main == (
        "2 of 6 devices (device-0 and device-1) can pick out nearly every private image "
        "(the worst: 98.5 of 100; guessing: 0.2 of 100). 1 more can pick out a few private images "
        "(at most 6.25 of 100; guessing: 0.2 of 100). For 1 more this was not shown. "
        "2 could not be attacked this way."
    )
    assert told["Centralized training"].main == (
        "Whoever trains the model is handed every private image: the protocol sends them, nothing is "
        "inferred."
    )


def test_no_sentence_claims_safety(study: tuple[Report, ...]) -> None:
    told = _told(*study)["Centralized training with DP-SGD"]
    assert told.verdict == "not shown to leak"
    assert "was not shown to do better than guessing" in told.main
    assert told.main.endswith("That is no proof of safety: another attack may do better.")


def test_other_ways_in_follow_with_their_verdicts(study: tuple[Report, ...]) -> None:
    told = _told(*study)
    assert told["SliceNet crowd"].others == (
        ("as centralized",
         "Anyone who holds the released model can tell, more often than by guessing, whose record was "
         "trained on, exactly as after centralized training (right for 59.4 of 100 pairs; guessing: 50 "
         "of 100)."),
    )  # fmt: skip


def test_what_measured_nothing_says_so(study: tuple[Report, ...]) -> None:
    assert _told(*study)["Split learning"] == Answer(
        "Split learning", "", "Nothing could be measured here; the reasons stand below.", ()
    )
    assert answers(lines_of(()), "record") == ()


def test_the_most_telling_run_speaks_and_names_itself(study: tuple[Report, ...]) -> None:
    weak = study[2]
    strong = replace(weak, scores=(replace(weak.scores[0], value=0.8, low=0.7),))
    strong = replace(strong, names=replace(strong.names, attack="better", variant="tuned"))
    told = _told(weak, strong)["Centralized training with DP-SGD"].main
    assert told.startswith("Anyone who holds the released model can tell, often, whose record")
    assert told.endswith("Most telling of 2 runs: better (tuned).")


def test_a_model_equal_to_one_that_was_not_shown_to_leak_is_not_said_to(
    study: tuple[Report, ...],
) -> None:
    low = replace(study[4], scores=(replace(study[4].scores[0], value=0.505, low=0.47),))
    assert _told(low)["SliceNet crowd"].main == (
        "Anyone who holds the released model was not shown to do better than guessing, exactly as after "
        "centralized training (right for 50.5 of 100 pairs; guessing: 50 of 100)."
    )


def test_seats_that_leak_by_chance_are_no_finding(study: tuple[Report, ...]) -> None:
    crowd = study[3]
    scores = tuple(replace(s, low=0.0) if s.seat == "worst" else s for s in crowd.scores)
    told = _told(replace(crowd, scores=scores))["SliceNet crowd"].main
    assert told.startswith(
        "None of 6 devices was shown to do better than guessing, though 3 of 4 lie above it one by one, "
        "as some do by chance"
    )
    assert "no proof of safety" in told


def test_a_goal_without_headline_is_told_by_its_first_metric(study: tuple[Report, ...]) -> None:
    score = replace(
        study[3].scores[0], goal="attribute", metric="accuracy", seat="device-0", blind=0.5
    )
    scores = (score, replace(score, seat="device-1"), replace(score, metric="gain", value=7.0))
    names = replace(study[3].names, goal="attribute")
    told = _told(replace(study[3], names=names, scores=scores, refusals=()))["SliceNet crowd"].main
    assert told == (
        "All 2 devices (device-0 and device-1) can find out more than by guessing (attribute) "
        "(the worst: accuracy 0.99; guessing: 0.5)."
    )


def test_defences_and_other_data_have_answers_of_their_own(study: tuple[Report, ...]) -> None:
    crowd = study[3]
    noisy = replace(crowd, names=replace(crowd.names, defense="gaussian_noise"))
    assert list(_told(crowd, noisy)) == ["SliceNet crowd", "SliceNet crowd with gaussian noise"]
    other = replace(crowd, names=replace(crowd.names, model="cnn"))
    assert list(_told(crowd, other)) == [
        "SliceNet crowd (digits, mlp)",
        "SliceNet crowd (digits, cnn)",
    ]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"value": math.nan}, "too few records"),
        ({"reliable": False}, "too few records"),
        ({"blind": math.nan}, "too few records"),
        ({"goal": "attribute", "metric": "accuracy"}, "can find out more than by guessing"),
        ({"n": 8, "value": 1.0}, "8 of 8"),
        ({"goal": "inversion", "metric": "evaluator_top1", "n": 10, "value": 0.5, "blind": 0.1},
         "5 of 10 classes recognised; guessing: 1 of 10"),
        ({"goal": "label", "metric": "label_accuracy", "n": 10, "value": 0.9, "low": 0.6, "blind": 0.1},
         "can tell the label of nearly every private"),
    ],
)  # fmt: skip
def test_odd_scores_have_words_too(
    changes: dict[str, object], part: str, study: tuple[Report, ...]
) -> None:
    report = study[3]
    score: Score = replace(report.scores[0], seat="coordinator", **changes)
    names = replace(report.names, threat="coordinator", goal=score.goal)
    told = _told(replace(report, names=names, scores=(score,), seats=(), refusals=()))
    assert part in told["SliceNet crowd"].main


def test_counts_and_names_read_well() -> None:
    assert [share(v) for v in (0.99, 0.5, 0.1, 0.01, -1)] == [
        "nearly every", "most", "some", "a few", "a few",
    ]  # fmt: skip
    assert of_hundred(0.375, 8) == "3 of 8"
    assert of_hundred(0.985, 200) == "98.5 of 100"
    assert of_hundred(0.0135, 8) == "1.35 of 100"
    assert (
        listed(["device-10", "device-2", "device-1", "device-3"])
        == "device-1 to device-3 and device-10"
    )
    assert listed(["b", "a"]) == "a and b"
    assert listed([f"x{2 * i}" for i in range(9)]) == "x0, x2, x4, x6, x8, x10 and 3 more"
