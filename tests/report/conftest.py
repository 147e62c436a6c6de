"""A report with everything in it."""

from __future__ import annotations

import numpy as np
import pytest

from privbench.report.crowd import Block, CrowdFacts, Load, Stage, Traffic
from privbench.report.report import Names, Refusal, Report, Run, SeatFacts, Target
from privbench.scoring.score import Pictures, Roc, Score


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
                {"torch": "2"}, {"members": 4}, "privbench seed=7", "seed: 7", ("a notice",)),
        curves=(Roc("device-0", (0.5, 1.0), (0.75, 1.0), (0.5, 1.0), (0.875, 1.0), 0.25),),
        crowd=CrowdFacts(
            (Stage("net.1", "stem", 4), Stage("net.3", "body", 8), Stage("net.5", "tail", 2)),
            (Block("device-0", "net.3", 5, "output"), Block("device-1", "net.3", 3, "output")),
            (Load("device-0", 10.0, 20.0, 30.0, 40.0), Load("device-1", 1.0, 20.0, 3.0, 40.0)),
            (Traffic("device-0", "device-1", 12.5),),
        ),
        pictures=(Pictures("device-0", *(np.full((2, 1, 3, 3), v, dtype=np.uint8) for v in (9, 8, 7))),),
    )  # fmt: skip
