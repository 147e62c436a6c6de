"""A report with everything in it."""

from __future__ import annotations

import pytest

from privbench.report.report import Names, Refusal, Report, Run, SeatFacts, Target
from privbench.scoring.score import Score


@pytest.fixture
def score() -> Score:
    return Score(
        "reconstruction", "identification", "worst", 0.75, 0.6, 0.9, 40, blind=0.1,
        blind_name="1 of 10", capture=0.5, note="ties: 0",
    )  # fmt: skip


@pytest.fixture
def report(score: Score) -> Report:
    """A crowd with two hosts that were attacked and three that could not be."""
    return Report(
        names=Names("compare", "080-slicenet-host", "digits", "mlp", "slicenet", "", "host",
                    "ridge_decoder", "", "reconstruction"),
        scores=(score,),
        references=(Score("reconstruction", "psnr_db", "device-0", 20.0, 19.0, 21.0, 40, blind=9.0,
                          method="nearest auxiliary image"),),
        seats=(
            SeatFacts("device-0", "peer", "prefix", 400, 90, 3),
            SeatFacts("device-1", "peer", "own", 12, 80, 3),
        ),
        refusals=(Refusal("it needs pairs, which this seat does not have", 3, "peer"),),
        target=Target(0.9, 1.0, 1234.5, 9e4, 3.0, 1e-5, "released", 1.5),
        run=Run(7, 1, "cpu", "0123456789abcdef", True, 16, None, 2.5, "cafe", "infrastructure",
                {"torch": "2"}, "seed: 7", ("a notice",)),
    )  # fmt: skip
