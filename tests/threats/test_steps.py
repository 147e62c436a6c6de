"""Which recorded steps a threat looks at."""

from __future__ import annotations

import pytest

from privbench.errors import UsageError
from privbench.threats.crowd import Host
from privbench.threats.outsider import Released

RECORDED = (0, 1, 2, 5, 6, 7)  # a recording with a gap


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ("all", RECORDED),
        ("epoch", (5, 6, 7)),
        ("first:2", (0, 1)),
        ("first:99", RECORDED),
        ("last:2", (6, 7)),
        ("last:99", RECORDED),
        ("first:0", ()),
        ("last:0", ()),
    ],
)
def test_windows(steps: str, kept: tuple[int, ...]) -> None:
    assert Released(steps=steps).looks_at(RECORDED, steps_per_epoch=4) == kept


def test_nothing_recorded_nothing_seen() -> None:
    for steps in ("all", "epoch", "first:3", "last:3"):
        assert Released(steps=steps).looks_at((), 4) == ()


@pytest.mark.parametrize(
    "steps", ["every", "first", "last:", "first:-1", "all:2", "epoch:1", "", (), None, 3]
)
def test_unknown_words_are_answered_with_the_right_ones(steps: object) -> None:
    with pytest.raises(UsageError, match="expected all, epoch, first:N or last:N"):
        Released(steps=steps)
    with pytest.raises(UsageError, match=r"threat.steps=\[\]" if steps == () else "threat.steps="):
        Host(steps=steps)  # what it knows depends on where it looks


@pytest.mark.parametrize("sample", [0, -1])
def test_no_seat_is_no_sample(sample: int) -> None:
    with pytest.raises(UsageError, match=rf"threat.sample={sample}; expected at least 1 seat"):
        Host(sample=sample)
